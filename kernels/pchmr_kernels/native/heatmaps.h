/* Peaks of heat maps; part of the C ABI of the native library. */
#ifndef PCHMR_HEATMAPS_H
#define PCHMR_HEATMAPS_H

#include "pchmr_kernels.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Moves each point to the centre of mass of its own map in the window of `radius` cells about it.
 * A point outside the maps, or whose window peaks below one half, stays.
 *
 * points, out: (count, 2), x and y in units of `1 / cell` cells. heatmaps: (height, width, count)
 * logits, of which the logistic is the mass. */
PCHMR_API void pchmr_refine_peaks(const float *heatmaps, int32_t height, int32_t width,
                                  int32_t count, const float *points, float cell, int32_t radius,
                                  float *out);

#ifdef __cplusplus
}
#endif

#endif
