#include "pchmr_crops.h"

#include "isa.h"

void pchmr_crop_u8(const uint8_t *image, int32_t height, int32_t width, int64_t pitch,
                   const double *affine, int32_t extend, int32_t size, uint8_t *out) {
    pchmr_chosen_isa().crop_rows({image, pitch, height, width, size, extend, affine, out}, 0, size);
}
