/* Crops of pictures; part of the C ABI of the native library. */
#ifndef PCHMR_CROPS_H
#define PCHMR_CROPS_H

#include "pchmr_kernels.h"

#ifdef __cplusplus
extern "C" {
#endif

/* A bilinear crop (size, size, 3) RGB of a picture (height, width, 3) BGR, whose rows are `pitch` bytes
 * apart and height * pitch less than 2^31. affine: (2, 3), the crop's pixels to the picture's.
 * extend: beyond the edge 1, the picture's last pixels; 0, black. */
PCHMR_API void pchmr_crop_u8(const uint8_t *image, int32_t height, int32_t width, int64_t pitch,
                             const double *affine, int32_t extend, int32_t size, uint8_t *out);

/* The same of regions (B, 4), see pchmr_person.h: (B, size, size, 3). */
PCHMR_API void pchmr_crop_regions_u8(const uint8_t *image, int32_t height, int32_t width,
                                     int64_t pitch, int64_t batch, const double *regions,
                                     int32_t extend, int32_t size, uint8_t *out);

#ifdef __cplusplus
}
#endif

#endif
