// The arithmetic of the calibration, one bone (float64) and one vertex (float32) at a time.
//
// Written once for the host compiler, nvcc and NVRTC: no standard library, and internal linkage, so
// that builds for several instruction sets live in one library. `reference.py` has the same functions
// under the same names, and is the judge.
#ifndef PCHMR_CALIBRATION_H
#define PCHMR_CALIBRATION_H

#if defined(__CUDACC__) || defined(__CUDACC_RTC__)
#define PCHMR_CUDA 1
#define PCHMR_FUNCTION __host__ __device__ static inline
#else
#define PCHMR_FUNCTION static inline
#endif
#if !defined(__CUDACC_RTC__)
#include <math.h>
#endif

#include "pchmr_kernels.h"

#ifdef __CUDA_ARCH__
#define PCHMR_LOOP _Pragma("unroll 1")  // once a block: registers matter more
#else
#define PCHMR_LOOP
#endif

namespace pchmr {

struct Vec3 {
    double x, y, z;
};

struct Mat3 {
    Vec3 row[3];
};

PCHMR_FUNCTION Vec3 operator+(Vec3 a, Vec3 b) { return {a.x + b.x, a.y + b.y, a.z + b.z}; }
PCHMR_FUNCTION Vec3 operator-(Vec3 a, Vec3 b) { return {a.x - b.x, a.y - b.y, a.z - b.z}; }
PCHMR_FUNCTION Vec3 operator*(double s, Vec3 a) { return {s * a.x, s * a.y, s * a.z}; }
PCHMR_FUNCTION double dot(Vec3 a, Vec3 b) { return a.x * b.x + a.y * b.y + a.z * b.z; }
PCHMR_FUNCTION double norm(Vec3 a) { return sqrt(dot(a, a)); }
PCHMR_FUNCTION Vec3 unit(Vec3 a) { return (1 / norm(a)) * a; }
PCHMR_FUNCTION Vec3 cross(Vec3 a, Vec3 b) {
    return {a.y * b.z - a.z * b.y, a.z * b.x - a.x * b.z, a.x * b.y - a.y * b.x};
}
PCHMR_FUNCTION Vec3 load(const double *p) { return {p[0], p[1], p[2]}; }

PCHMR_FUNCTION Vec3 operator*(const Mat3 &m, Vec3 a) {
    return {dot(m.row[0], a), dot(m.row[1], a), dot(m.row[2], a)};
}
PCHMR_FUNCTION Mat3 operator*(const Mat3 &a, const Mat3 &b) {
    Mat3 product;
    for (int i = 0; i < 3; ++i)
        product.row[i] =
            a.row[i].x * b.row[0] + a.row[i].y * b.row[1] + a.row[i].z * b.row[2];
    return product;
}
PCHMR_FUNCTION Mat3 identity() { return {{{1, 0, 0}, {0, 1, 0}, {0, 0, 1}}}; }

// I + sine [c] + f [c]^2
PCHMR_FUNCTION Mat3 turn(Vec3 c, double sine, double f) {
    const double xx = f * c.x * c.x, yy = f * c.y * c.y, zz = f * c.z * c.z;
    const double xy = f * c.x * c.y, xz = f * c.x * c.z, yz = f * c.y * c.z;
    const Vec3 s = sine * c;
    return {{{1 - yy - zz, xy - s.z, xz + s.y},
             {xy + s.z, 1 - xx - zz, yz - s.x},
             {xz - s.y, yz + s.x, 1 - xx - yy}}};
}

constexpr double kShortestBone = 1e-9;  // metres; a shorter bone has no direction
constexpr double kParallel = 1e-20;     // squared sine of an angle that cannot be told from 0 or pi
constexpr double kPi = 3.14159265358979323846;

PCHMR_FUNCTION Mat3 rotation(Vec3 axis, double angle) {  // Eq. (7)
    return turn(axis, sin(angle), 1 - cos(angle));
}

// Square to u: u x the first of `axes` that is not parallel to it, else of the frame's.
PCHMR_FUNCTION Vec3 half_turn_axis(Vec3 u, const Vec3 *axes, int n_axes) {
    const Mat3 frame = identity();
    Vec3 square = {0, 0, 0};
    for (int i = 0; i < n_axes + 3; ++i) {
        const Vec3 axis = i < n_axes ? axes[i] : frame.row[i - n_axes];
        if (norm(axis) < kShortestBone) continue;
        square = cross(u, unit(axis));
        if (norm(square) >= 1e-3) break;
    }
    return unit(square);
}

// Psi, the smallest rotation of the direction of b_src onto that of b_tgt, Eq. (6-7).
PCHMR_FUNCTION Mat3 bone_rotation(Vec3 b_src, Vec3 b_tgt, const Vec3 *axes, int n_axes) {
    if (norm(b_src) < kShortestBone || norm(b_tgt) < kShortestBone) return identity();
    const Vec3 u = unit(b_src), v = unit(b_tgt), c = cross(u, v);
    const double d = dot(u, v), cc = dot(c, c);
    if (d < 0 && cc < kParallel) return turn(half_turn_axis(u, axes, n_axes), 0, 2);
    return turn(c, 1, d >= 0 ? 1 / (1 + d) : (1 - d) / cc);
}

// From b_src (share 0) to b_tgt (share 1), angle and length apart.
PCHMR_FUNCTION Vec3 fade_bone(Vec3 b_src, Vec3 b_tgt, double share, const Vec3 *axes, int n_axes) {
    const double length_src = norm(b_src), length_tgt = norm(b_tgt);
    if (share <= 0 || share >= 1 || length_src < kShortestBone || length_tgt < kShortestBone)
        return (1 - share) * b_src + share * b_tgt;
    const Vec3 u = unit(b_src), v = unit(b_tgt), c = cross(u, v);
    const double angle = atan2(norm(c), dot(u, v));
    const Vec3 axis = dot(c, c) >= kParallel ? unit(c) : half_turn_axis(u, axes, n_axes);
    const double length = (1 - share) * length_src + share * length_tgt;
    return length * (rotation(axis, share * angle) * u);
}

// 0 below `low`, 1 above `high`, smooth between them; 0 for NaN.
PCHMR_FUNCTION double joint_weight(double confidence, double low, double high) {
    const double x = (confidence - low) / (high - low);
    if (!(x > 0)) return 0;
    return x < 1 ? x * x * (3 - 2 * x) : 1;
}

// The rotation R with the greatest trace(R H): Horn's unit quaternion, the eigenvector of a symmetric
// 4 x 4 matrix, by Jacobi sweeps. Never a reflection.
PCHMR_FUNCTION Mat3 fit_rotation(const double H[3][3]) {
    double N[4][4] = {
        {H[0][0] + H[1][1] + H[2][2], H[1][2] - H[2][1], H[2][0] - H[0][2], H[0][1] - H[1][0]},
        {0, H[0][0] - H[1][1] - H[2][2], H[0][1] + H[1][0], H[2][0] + H[0][2]},
        {0, 0, H[1][1] - H[0][0] - H[2][2], H[1][2] + H[2][1]},
        {0, 0, 0, H[2][2] - H[0][0] - H[1][1]}};
    double Q[4][4] = {{1, 0, 0, 0}, {0, 1, 0, 0}, {0, 0, 1, 0}, {0, 0, 0, 1}};
    for (int i = 0; i < 4; ++i)
        for (int j = 0; j < i; ++j) N[i][j] = N[j][i];
    PCHMR_LOOP
    for (int sweep = 0; sweep < 8; ++sweep) {
        PCHMR_LOOP
        for (int p = 0; p < 3; ++p) {
            PCHMR_LOOP
            for (int q = p + 1; q < 4; ++q) {
                const double difference = N[q][q] - N[p][p];
                const double twice = difference < 0 ? -2 * N[p][q] : 2 * N[p][q];
                if (twice == 0) continue;
                const double angle = 0.5 * atan2(twice, fabs(difference));
                const double c = cos(angle), s = sin(angle);
                for (int k = 0; k < 4; ++k) {
                    const double a = N[k][p], b = N[k][q];
                    N[k][p] = c * a - s * b;
                    N[k][q] = s * a + c * b;
                }
                for (int k = 0; k < 4; ++k) {
                    const double a = N[p][k], b = N[q][k];
                    N[p][k] = c * a - s * b;
                    N[q][k] = s * a + c * b;
                    const double e = Q[k][p], f = Q[k][q];
                    Q[k][p] = c * e - s * f;
                    Q[k][q] = s * e + c * f;
                }
            }
        }
    }
    int best = 0;
    for (int k = 1; k < 4; ++k)
        if (N[k][k] > N[best][best]) best = k;
    const double w = Q[0][best], x = Q[1][best], y = Q[2][best], z = Q[3][best];
    return {{{1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)},
             {2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)},
             {2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)}}};
}

// The rotation of the rigid fit of the source's torso to the target's. A joint of weight below 1 is
// pulled back to the source by the rest, so that a torso nobody saw is not turned at all.
PCHMR_FUNCTION Mat3 torso_rotation(const pchmr_bones &bones, const Vec3 *source, const Vec3 *target,
                                   const double *weight) {
    Vec3 mean = {0, 0, 0}, mean_src = {0, 0, 0}, mean_tgt = {0, 0, 0};
    double total = 0;
    for (int i = 0; i < bones.n_torso; ++i) {
        const int j = bones.torso[i];
        mean = mean + (1.0 / bones.n_torso) * source[j];
        mean_src = mean_src + weight[j] * source[j];
        mean_tgt = mean_tgt + weight[j] * target[j];
        total += weight[j];
    }
    if (total > 0) {
        mean_src = (1 / total) * mean_src;
        mean_tgt = (1 / total) * mean_tgt;
    }
    double H[3][3] = {};
    for (int i = 0; i < bones.n_torso; ++i) {
        const int j = bones.torso[i];
        const Vec3 own = source[j] - mean, s = weight[j] * (source[j] - mean_src);
        const Vec3 t = target[j] - mean_tgt, rest = (1 - weight[j]) * own;
        const double from[3][2] = {{s.x, rest.x}, {s.y, rest.y}, {s.z, rest.z}};
        const double to[3][2] = {{t.x, own.x}, {t.y, own.y}, {t.z, own.z}};
        for (int m = 0; m < 3; ++m)
            for (int n = 0; n < 3; ++n) H[m][n] += from[m][0] * to[n][0] + from[m][1] * to[n][1];
    }
    return fit_rotation(H);
}

// The factor of the target that best fits its bone lengths to the source's.
PCHMR_FUNCTION double fitting_scale(const pchmr_bones &bones, const Vec3 *source,
                                    const Vec3 *target, const double *weight) {
    double numerator = 0, denominator = 0;
    for (int k = 0; k < bones.bones; ++k) {
        const int p = bones.pairs[2 * k], c = bones.pairs[2 * k + 1];
        const double share = weight[p] < weight[c] ? weight[p] : weight[c];
        const double length = norm(target[p] - target[c]);
        numerator += share * norm(source[p] - source[c]) * length;
        denominator += share * length * length;
    }
    return numerator * denominator > 0 ? numerator / denominator : 1;
}

// Psi | T (K, 3, 4) and Delta (K, 3) about `centre`, which it sets to the source's root rounded to
// float32. The pre-alignment is folded into Psi and T.
PCHMR_FUNCTION void row_transforms(const pchmr_bones &bones, const double *source_joints,
                                   const double *target_joints, const double *confidence,
                                   const double *alpha, double *transforms, double *deltas,
                                   double *centre) {
    Vec3 source[PCHMR_MAX_JOINTS], target[PCHMR_MAX_JOINTS], faded[PCHMR_MAX_JOINTS];
    double weight[PCHMR_MAX_JOINTS];
    Vec3 axes[PCHMR_MAX_JOINTS];

    // 0. About the root; what is missing weighs nothing.
    const Vec3 root = load(source_joints + 3 * bones.root);
    const Vec3 origin = {(float)root.x, (float)root.y, (float)root.z};
    const Vec3 left = root - origin;  // what rounding the centre left over
    for (int j = 0; j < bones.joints; ++j) {
        source[j] = load(source_joints + 3 * j) - origin;
        target[j] = load(target_joints + 3 * j) - origin;
        weight[j] = 0;
        if (norm(target[j]) <= 1e300)  // false for NaN
            weight[j] = confidence ? joint_weight(confidence[j], bones.low, bones.high) : 1;
        if (weight[j] == 0) target[j] = source[j];
    }
    const Mat3 R = bones.n_torso ? torso_rotation(bones, source, target, weight) : identity();
    const Vec3 shift = left - R * left;
    for (int j = 0; j < bones.joints; ++j) source[j] = R * source[j] + shift;
    for (int i = 0; i < bones.n_axes; ++i)
        axes[i] = source[bones.axes[2 * i]] - source[bones.axes[2 * i + 1]];
    const double scale = bones.fit_scale ? fitting_scale(bones, source, target, weight) : 1;
    for (int j = 0; j < bones.joints; ++j) {
        const Vec3 aligned = scale * (target[j] - target[bones.root]) + source[bones.root];
        faded[j] = source[j] + weight[j] * weight[bones.root] * (aligned - source[j]);
    }
    faded[bones.root] = source[bones.root];

    for (int i = 0; i < bones.bones; ++i) {
        const int k = bones.order[i], p = bones.pairs[2 * k], c = bones.pairs[2 * k + 1];
        const double share = weight[p] < weight[c] ? weight[p] : weight[c];
        // 1. Bone vectors, faded; the skeleton is put together again from the root.
        const Vec3 b_src = source[p] - source[c], b_tgt = scale * (target[p] - target[c]);
        const Vec3 b = fade_bone(b_src, b_tgt, share, axes, bones.n_axes);
        faded[c] = faded[p] - b;
        // 2.-4. Psi, T, Delta.
        Mat3 psi = bone_rotation(b_src, b, axes, bones.n_axes);
        if (alpha && norm(b) >= kShortestBone) psi = rotation(unit(b), alpha[k]) * psi;
        const Vec3 t = faded[p] - psi * source[p];
        const Vec3 delta = faded[c] - (psi * source[c] + t);

        const Mat3 whole = psi * R;
        const Vec3 move = t + psi * shift;
        const double rows[12] = {whole.row[0].x, whole.row[0].y, whole.row[0].z, move.x,
                                 whole.row[1].x, whole.row[1].y, whole.row[1].z, move.y,
                                 whole.row[2].x, whole.row[2].y, whole.row[2].z, move.z};
        for (int r = 0; r < 12; ++r) transforms[12 * k + r] = rows[r];
        deltas[3 * k] = delta.x, deltas[3 * k + 1] = delta.y, deltas[3 * k + 2] = delta.z;
    }
    centre[0] = origin.x, centre[1] = origin.y, centre[2] = origin.z;
}

#ifndef PCHMR_CUDA  // whose blend is in mesh.h
// A bone is a record of 32 floats, two cache lines: the columns of R and t, each padded to four, then
// delta. Lanes says how many floats an instruction takes.
constexpr int kRecord = 32;
#ifndef PCHMR_LANES
#define PCHMR_LANES 4
#endif
typedef float Vec4 __attribute__((vector_size(16), aligned(4), may_alias));
typedef float Wide __attribute__((vector_size(4 * PCHMR_LANES), aligned(4), may_alias));
PCHMR_FUNCTION void store(Vec4 a, float *p) { p[0] = a[0], p[1] = a[1], p[2] = a[2]; }

PCHMR_FUNCTION void pack_record(const float *transform, const float *delta, float *record) {
    for (int i = 0; i < kRecord; ++i) record[i] = 0;
    for (int row = 0; row < 3; ++row) {
        for (int column = 0; column < 4; ++column)
            record[4 * column + row] = transform[4 * row + column];
        if (delta) record[16 + row] = delta[row];
    }
}

// Eq. (12-13): the transforms are blended first and applied once.
template <int Slots, bool Stretch>
PCHMR_FUNCTION void blend_vertex(const float *vertex, const float *records, const int32_t *index,
                                 const float *value, const float *offset, const float *centre,
                                 float *out) {
    union {
        Wide wide[16 / PCHMR_LANES];
        Vec4 column[4];
    } blended = {};
    const Vec4 origin = {centre[0], centre[1], centre[2], 0};
    Vec4 stretch = {};
    for (int s = 0; s < Slots; ++s) {
        const float *record = records + (int64_t)index[s] * kRecord;
        for (int i = 0; i < 16 / PCHMR_LANES; ++i)
            blended.wide[i] = blended.wide[i] + ((const Wide *)record)[i] * value[s];
        if (Stretch) stretch = stretch + *(const Vec4 *)(record + 16) * offset[s];
    }
    const Vec4 moved = blended.column[0] * (vertex[0] - centre[0]) +
                       blended.column[1] * (vertex[1] - centre[1]) +
                       blended.column[2] * (vertex[2] - centre[2]) + blended.column[3] + stretch;
    store(moved + origin, out);  // last: far from the camera this one rounding is all that is lost
}
#endif

}  // namespace pchmr

#endif
