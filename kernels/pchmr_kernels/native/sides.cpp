#include "pchmr_sides.h"

#include <cmath>

namespace {

constexpr double kLeastWeight = 1e-6;

double distance(const float *a, const float *b) {
    const double x = double(a[0]) - b[0], y = double(a[1]) - b[1];
    return std::sqrt(x * x + y * y);
}

}  // namespace

double pchmr_exchanged_nearer_f32(const float *points, const float *before,
                                  const int32_t *partners, int32_t first, int32_t end) {
    double nearer = 0, total = 0;
    for (int32_t i = first; i < end; ++i) {
        const double weight = points[3 * i + 2];
        const float *here = before + 3 * i;
        nearer += weight * (distance(points + 3 * i, here) -
                            distance(points + 3 * partners[i], here));
        total += weight;
    }
    return nearer / (total > kLeastWeight ? total : kLeastWeight);
}
