#include "pchmr_smooth.h"

#include "calibration.h"

using namespace pchmr;

namespace {

constexpr double kTiny = 1e-12;

// How much of the way to a new value is gone.
double share_of(double cutoff_hz, double seconds) {
    return 1 / (1 + 1 / (2 * kPi * cutoff_hz * seconds));
}

Mat3 load_matrix(const double *m) { return {{load(m), load(m + 3), load(m + 6)}}; }

// The turn from a to b, in a's frame, as a rotation vector: by the unit quaternion, read from its
// largest component, so that angles near 0 and near pi are as exact as any other.
Vec3 turn_between(const double *a, const double *b) {
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
    for (int i = 0; i < 3; ++i) {
        a[3 * i] = turned.row[i].x, a[3 * i + 1] = turned.row[i].y, a[3 * i + 2] = turned.row[i].z;
    }
}

}  // namespace

int32_t pchmr_smooth_f64(int32_t kind, int64_t count, int32_t size, double seconds, double least_hz,
                         double slope, double speed_hz, const double *given, double *value,
                         double *velocity, double *lag_ms) {
    const int64_t numbers = kind == PCHMR_SMOOTH_ROTATIONS ? 9 : size;
    for (int64_t i = 0; i < count * numbers; ++i)
        if (!isfinite(given[i]) || !isfinite(value[i])) return 1;
    const double speed_share = share_of(speed_hz, seconds);
    double lag = 0, total = 0;
    for (int64_t n = 0; n < count; ++n, given += numbers, value += numbers, velocity += size) {
        double turned[3];
        if (kind == PCHMR_SMOOTH_ROTATIONS) {
            const Vec3 step = turn_between(value, given);
            turned[0] = step.x, turned[1] = step.y, turned[2] = step.z;
        }
        const auto step = [&](int32_t i) {
            return kind == PCHMR_SMOOTH_ROTATIONS ? turned[i] : given[i] - value[i];
        };
        double squares = 0;
        for (int32_t i = 0; i < size; ++i) {
            velocity[i] += speed_share * (step(i) / seconds - velocity[i]);
            squares += velocity[i] * velocity[i];
        }
        const double speed = sqrt(squares), share = share_of(least_hz + slope * speed, seconds);
        if (kind == PCHMR_SMOOTH_ROTATIONS) {
            turn_by(value, share * Vec3{turned[0], turned[1], turned[2]});
        } else {
            double length = 0;
            for (int32_t i = 0; i < size; ++i) {
                value[i] += share * step(i);
                length += value[i] * value[i];
            }
            length = sqrt(length) > 1e-9 ? sqrt(length) : 1e-9;
            for (int32_t i = 0; kind == PCHMR_SMOOTH_DIRECTIONS && i < size; ++i)
                value[i] /= length;
        }
        lag += 1e3 * seconds * (1 - share) / share * speed;
        total += speed;
    }
    *lag_ms = lag / (total > 1e-9 ? total : 1e-9);
    return 0;
}
