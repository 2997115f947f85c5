/* What one launch of gradients.cu reads: gradients of the blend with dense weights, for training.
 * Pointers are of the device, arrays contiguous. */
#ifndef PCHMR_GRADIENTS_H
#define PCHMR_GRADIENTS_H

#include "bones.h"

typedef struct {
    int64_t batch, vertices_count;
    int32_t bones;
    const float *vertices, *transforms, *delta; /* (B, V, 3), (B, K, 3, 4), (B, K, 3) or null */
    const float *values, *offsets;              /* (V, K) A, and A * W or null */
    const float *gradient;                      /* (B, V, 3), of the result */
    /* To write, each null where it is not wanted. */
    float *grad_vertices, *grad_transforms, *grad_delta, *grad_values, *grad_offsets;
} pchmr_cuda_gradients;

#endif
