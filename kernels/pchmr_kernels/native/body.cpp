#include "pchmr_body.h"

#include <vector>

#include "geometry.h"

using namespace pchmr;

void pchmr_pose_body_f64(int64_t batch, int32_t joints, int32_t shapes, int32_t terms,
                         const int32_t *parents, const double *rest, const double *rotmats,
                         const double *betas, const double *transl, float *transforms,
                         float *coefficients, double *posed) {
    thread_local std::vector<double> memory;  // of a row: transforms (J, 12), rest joints (J, 3)
    memory.resize(15 * size_t(joints));
    double *moves = memory.data(), *at = moves + 12 * joints;
    for (int64_t b = 0; b < batch; ++b) {
        const double *R = rotmats + 9 * b * joints, *shape = betas + b * shapes;
        double *out = posed + 3 * b * joints;
        for (int32_t i = 0; i < 3 * joints; ++i) {
            at[i] = rest[i];
            for (int32_t s = 0; s < shapes; ++s) at[i] += shape[s] * rest[3 * joints * (s + 1) + i];
        }
        pose_joints(joints, parents, R, at, moves, out);
        for (int32_t j = 0; transl && j < joints; ++j)
            for (int i = 0; i < 3; ++i) {
                moves[12 * j + 4 * i + 3] += transl[3 * b + i];
                out[3 * j + i] += transl[3 * b + i];
            }
        for (int32_t i = 0; i < 12 * joints; ++i) *transforms++ = float(moves[i]);
        float *term = coefficients + b * terms;
        *term++ = 1;
        for (int32_t s = 0; s < shapes; ++s) *term++ = float(shape[s]);
        for (int32_t i = 0; i < terms - 1 - shapes; ++i)
            *term++ = float(R[9 + i] - (i % 9 % 4 == 0));
    }
}

void pchmr_regress_f32(int64_t batch, int64_t vertices, const float *xyz, int32_t joints,
                       const int32_t *starts, const int32_t *indices, const float *values,
                       float *out) {
    for (int64_t b = 0; b < batch; ++b, xyz += 3 * vertices)
        for (int32_t j = 0; j < joints; ++j, out += 3) {
            double x = 0, y = 0, z = 0;
            for (int32_t i = starts[j]; i < starts[j + 1]; ++i) {
                const float *vertex = xyz + 3 * int64_t(indices[i]);
                const double value = values[i];
                x += value * vertex[0], y += value * vertex[1], z += value * vertex[2];
            }
            out[0] = float(x), out[1] = float(y), out[2] = float(z);
        }
}
