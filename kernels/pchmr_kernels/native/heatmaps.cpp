#include "heatmaps.h"

#include <algorithm>
#include <cmath>

extern "C" void pchmr_refine_peaks(const float *heatmaps, int32_t height, int32_t width,
                                   int32_t count, const float *points, float cell, int32_t radius,
                                   float *out) {
    for (int32_t n = 0; n < count; ++n) {
        const float x = points[2 * n], y = points[2 * n + 1];
        const float column = std::floor(x / cell), row = std::floor(y / cell);
        out[2 * n] = x, out[2 * n + 1] = y;
        if (!(column >= 0 && column < width && row >= 0 && row < height)) continue;  // or NaN
        const int32_t left = std::max(int32_t(column) - radius, 0);
        const int32_t right = std::min(int32_t(column) + radius, width - 1);
        const int32_t top = std::max(int32_t(row) - radius, 0);
        const int32_t bottom = std::min(int32_t(row) + radius, height - 1);
        float total = 0, mean_x = 0, mean_y = 0, peak = 0;
        for (int32_t i = top; i <= bottom; ++i)
            for (int32_t j = left; j <= right; ++j) {
                const float logit = heatmaps[(int64_t(i) * width + j) * count + n];
                const float mass = 1 / (1 + std::exp(-logit));
                total += mass, mean_x += mass * j, mean_y += mass * i;
                peak = std::max(peak, mass);
            }
        if (peak < 0.5f) continue;
        out[2 * n] = mean_x / total * cell, out[2 * n + 1] = mean_y / total * cell;
    }
}
