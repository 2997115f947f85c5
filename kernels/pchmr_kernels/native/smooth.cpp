#include "pchmr_smooth.h"

#include <algorithm>

#include "calibration.h"

using namespace pchmr;

namespace {

constexpr double kTiny = 1e-12;

template <class T>
bool all_finite(const T *x, int64_t n) {
    for (int64_t i = 0; i < n; ++i)
        if (!isfinite(x[i])) return false;
    return true;
}

// How much of the way to a new value is gone.
double share_of(double cutoff_hz, double seconds) {
    return 1 / (1 + 1 / (2 * kPi * cutoff_hz * seconds));
}

void store(Vec3 a, double *p) { p[0] = a.x, p[1] = a.y, p[2] = a.z; }

Mat3 load_matrix(const double *m) { return {{load(m), load(m + 3), load(m + 6)}}; }

// The turn from a to b, in a's frame, as a rotation vector: by the unit quaternion, read from its
// largest component, so that angles near 0 and near pi are as exact as any other.
template <class T>
Vec3 turn_between(const double *a, const T *b) {
    double m[3][3];
    for (int i = 0; i < 3; ++i)
        for (int j = 0; j < 3; ++j)
            m[i][j] = a[i] * b[j] + a[3 + i] * b[3 + j] + a[6 + i] * b[6 + j];
    const double trace = m[0][0] + m[1][1] + m[2][2];
    const double x = m[2][1] - m[1][2], y = m[0][2] - m[2][0], z = m[1][0] - m[0][1];
    const double xy = m[0][1] + m[1][0], xz = m[0][2] + m[2][0], yz = m[1][2] + m[2][1];
    const double rows[4][4] = {{1 + trace, x, y, z},
                               {x, 1 + 2 * m[0][0] - trace, xy, xz},
                               {y, xy, 1 + 2 * m[1][1] - trace, yz},
                               {z, xz, yz, 1 + 2 * m[2][2] - trace}};
    int best = 0;
    for (int i = 1; i < 4; ++i)
        if (rows[i][i] > rows[best][best]) best = i;
    const double *q = rows[best];
    const double sign = q[0] < 0 ? -1 : 1;
    const Vec3 axis = sign * Vec3{q[1], q[2], q[3]};
    const double sine = norm(axis), length = sqrt(sine * sine + q[0] * q[0]);
    const double angle = 2 * atan2(sine, sign * q[0]);
    return (sine > kTiny * length ? angle / sine : 2 / length) * axis;
}

// a, turned by a rotation vector in its own frame.
void turn_by(double *a, Vec3 rotvec) {
    const double angle = norm(rotvec);
    const double first = angle > kTiny ? sin(angle) / angle : 1;
    const double half = angle > kTiny ? sin(angle / 2) / (angle / 2) : 1;
    const Mat3 turned = load_matrix(a) * turn(rotvec, first, half * half / 2);
    for (int i = 0; i < 3; ++i) store(turned.row[i], a + 3 * i);
}

// pchmr_smooth_f64 and _f32
template <class T>
void smooth(pchmr_filter *filter, int64_t t_ns, T *values) {
    const bool rotations = filter->kind == PCHMR_SMOOTH_ROTATIONS;
    const bool directions = filter->kind == PCHMR_SMOOTH_DIRECTIONS;
    const int32_t size = filter->size, numbers = rotations ? 9 : size;
    const int64_t count = filter->count;
    double *value = filter->value, *velocity = filter->velocity;
    const double seconds = std::max((t_ns - filter->t_ns) / 1e9, 1e-3);
    filter->t_ns = t_ns, filter->lag_ms = 0;
    if (!all_finite(values, count * numbers) || !all_finite(value, count * numbers)) {
        std::copy_n(values, count * numbers, value);
        std::fill_n(velocity, count * size, 0);
        return;
    }
    const double speed_share = share_of(filter->speed_hz, seconds);
    double lag = 0, total = 0;
    for (int64_t n = 0; n < count; ++n, values += numbers, value += numbers, velocity += size) {
        double turned[3];
        if (rotations) store(turn_between(value, values), turned);
        const auto step = [&](int32_t i) { return rotations ? turned[i] : values[i] - value[i]; };
        double squares = 0;
        for (int32_t i = 0; i < size; ++i) {
            velocity[i] += speed_share * (step(i) / seconds - velocity[i]);
            squares += velocity[i] * velocity[i];
        }
        const double speed = sqrt(squares);
        const double share = share_of(filter->least_hz + filter->slope * speed, seconds);
        if (rotations) {
            turn_by(value, share * load(turned));
        } else {
            double length = 0;
            for (int32_t i = 0; i < size; ++i) {
                value[i] += share * step(i);
                length += value[i] * value[i];
            }
            length = std::max(sqrt(length), kShortestBone);
            for (int32_t i = 0; directions && i < size; ++i) value[i] /= length;
        }
        std::copy_n(value, numbers, values);
        lag += 1e3 * seconds * (1 - share) / share * speed;
        total += speed;
    }
    filter->lag_ms = lag / std::max(total, 1e-9);
}

}  // namespace

void pchmr_smooth_f64(pchmr_filter *filter, const int64_t *t_ns, double *values) {
    smooth(filter, *t_ns, values);
}

void pchmr_smooth_f32(pchmr_filter *filter, const int64_t *t_ns, float *values) {
    smooth(filter, *t_ns, values);
}

void pchmr_smooth_place_f64(pchmr_filter *seen, pchmr_filter *depth, const int64_t *t_ns,
                            double *place) {
    if (!(place[2] > 0)) return;
    double at[2] = {place[0] / place[2], place[1] / place[2]};
    pchmr_smooth_f64(seen, t_ns, at);
    pchmr_smooth_f64(depth, t_ns, place + 2);
    place[0] = at[0] * place[2], place[1] = at[1] * place[2];
}

void pchmr_smooth_bones_f64(pchmr_filter *directions, pchmr_filter *lengths, const int32_t *pairs,
                            double *room, const int64_t *t_ns, double *joints) {
    const int64_t count = directions->count;
    if (!all_finite(joints, 3 * (count + 1))) return;
    double *length = room + 3 * count;
    for (int64_t n = 0; n < count; ++n) {
        const Vec3 bone = load(joints + 3 * pairs[2 * n + 1]) - load(joints + 3 * pairs[2 * n]);
        length[n] = norm(bone);
        store((1 / std::max(length[n], kShortestBone)) * bone, room + 3 * n);
    }
    pchmr_smooth_f64(directions, t_ns, room);
    pchmr_smooth_f64(lengths, t_ns, length);
    for (int64_t n = 0; n < count; ++n)
        store(load(joints + 3 * pairs[2 * n]) + length[n] * load(room + 3 * n),
              joints + 3 * pairs[2 * n + 1]);
}
