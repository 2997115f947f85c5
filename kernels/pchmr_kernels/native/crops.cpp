#include "pchmr_crops.h"

#include "isa.h"
#include "person.h"

void pchmr_crop_u8(const uint8_t *image, int32_t height, int32_t width, int64_t pitch,
                   const double *affine, int32_t extend, int32_t size, uint8_t *out) {
    pchmr_chosen_isa().crop_rows({image, pitch, height, width, size, extend, affine, out}, 0, size);
}

void pchmr_crop_regions_u8(const uint8_t *image, int32_t height, int32_t width, int64_t pitch,
                           int64_t batch, const double *regions, int32_t extend, int32_t size,
                           uint8_t *out) {
    for (const double *r = regions; r < regions + 4 * batch; r += 4) {
        double affine[6];
        pchmr::crop_to_image({r[0], r[1], r[2], r[3]}, size, affine);
        pchmr_crop_u8(image, height, width, pitch, affine, extend, size, out);
        out += int64_t(size) * size * 3;
    }
}
