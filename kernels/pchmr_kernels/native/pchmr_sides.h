/* Left and right of followed people; part of the C ABI of the native library. */
#ifndef PCHMR_SIDES_H
#define PCHMR_SIDES_H

#include "pchmr_kernels.h"

#ifdef __cplusplus
extern "C" {
#endif

/* By how many pixels the points from `first` up to `end` are nearer to those before with their
 * sides exchanged, in the mean by weight; 0 where all weigh nothing.
 *
 * points, before: (N, 3) x px, y px, weight, of which those of `points` count. partners: (N) the
 * point of the other side, below N: not checked here. */
PCHMR_API double pchmr_exchanged_nearer_f32(const float *points, const float *before,
                                            const int32_t *partners, int32_t first, int32_t end);

#ifdef __cplusplus
}
#endif

#endif
