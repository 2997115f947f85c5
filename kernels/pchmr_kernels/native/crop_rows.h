// Rows of one crop of a picture: one function an instruction set.
#ifndef PCHMR_CROP_ROWS_H
#define PCHMR_CROP_ROWS_H

#include <stdint.h>

struct pchmr_crop {
    const uint8_t *image;  // (height, width, 3) BGR, `pitch` bytes from row to row
    int64_t pitch;
    int32_t height, width, size;
    int32_t extend;        // beyond the edge: 1, the picture's last pixels; 0, black
    const double *affine;  // (2, 3), the crop's pixels to the picture's
    uint8_t *out;          // (size, size, 3) RGB
};

void pchmr_crop_rows_baseline(const pchmr_crop &crop, int32_t begin, int32_t end);
#if defined(__x86_64__)
void pchmr_crop_rows_avx2(const pchmr_crop &crop, int32_t begin, int32_t end);
void pchmr_crop_rows_avx512(const pchmr_crop &crop, int32_t begin, int32_t end);
#endif

#endif
