#include "heatmaps.h"

#include "person.h"

extern "C" void pchmr_refine_peaks(const float *heatmaps, int32_t height, int32_t width,
                                   int32_t count, const float *points, float cell, int32_t radius,
                                   float *out) {
    for (int32_t n = 0; n < count; ++n) {
        out[2 * n] = points[2 * n], out[2 * n + 1] = points[2 * n + 1];
        pchmr::refine_peak(heatmaps, height, width, count, n, cell, radius, out + 2 * n,
                           out + 2 * n + 1);
    }
}
