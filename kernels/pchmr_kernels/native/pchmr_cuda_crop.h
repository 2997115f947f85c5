/* What one launch of crop.cu reads: crops of a frame for image networks. Pointers are of the device. */
#ifndef PCHMR_CUDA_CROP_H
#define PCHMR_CUDA_CROP_H

#include "pchmr_cuda.h"

typedef struct {
    const uint8_t *frame;  /* (height, width, 3) BGR, or the luma of NV12, rows `pitch` bytes apart */
    const uint8_t *chroma; /* NV12: (height / 2, width / 2, 2) U and V, `chroma_pitch` apart; else null */
    int64_t pitch, chroma_pitch;
    int32_t height, width;
    int32_t crops, crop_height, crop_width;
    int32_t extend;        /* 1: the frame's last pixels go on beyond its edge; 0: black */
    pchmr_reals affines;   /* (B, 2, 3), from the pixels of a crop to the frame's; not finite: black */
    uint8_t *out;          /* (B, crop_height, crop_width, 3) RGB */
} pchmr_cuda_crops;

#endif
