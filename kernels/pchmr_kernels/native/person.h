// What lies between the networks of a followed person, beside geometry.h: where the crop looks, what
// the landmark network's answer means in the frame, and where the next frame's crop looks.
//
// Written once for the host compiler, nvcc and NVRTC. pchmr/blazepose.py, crops.py and placement.py
// have the same functions under the same names.
#ifndef PCHMR_PERSON_H
#define PCHMR_PERSON_H

#include "geometry.h"

namespace pchmr {

// A turned square in the image: pixels, radians clockwise.
struct Roi {
    double x, y, size, angle;
};

constexpr double kRoiMargin = 1.25, kSmallestRoi = 1;  // the second in pixels
constexpr double kNearestProjected = 1e-6;             // metres
constexpr double kWorld = 0.25;           // share of the world landmarks in a target's depth
constexpr double kNearestTarget = 0.1;    // metres
constexpr int kLeftHip = 23, kRightHip = 24;

// The (2, 3) affine from the pixels of an n x n crop to the image's.
PCHMR_FUNCTION void crop_to_image(const Roi &roi, double n, double *affine) {
    const double scale = roi.size / n, half = n / 2;
    const double c = cos(roi.angle) * scale, s = sin(roi.angle) * scale;
    affine[0] = c, affine[1] = -s, affine[2] = roi.x - (c - s) * half;
    affine[3] = s, affine[4] = c, affine[5] = roi.y - (s + c) * half;
}

// The square around a body from the middle of its hips and the point above its head.
PCHMR_FUNCTION Roi roi_from_alignment(double x, double y, double above_x, double above_y) {
    const double dx = above_x - x, dy = above_y - y;
    const double size = 2 * kRoiMargin * sqrt(dx * dx + dy * dy);
    return {x, y, size > kSmallestRoi ? size : kSmallestRoi, atan2(dx, -dy)};
}

// The rotation (3, 3) from a crop's own frame, z along its viewing ray, to the camera's: the shortest
// turn of the axis onto the ray, after the crop's own roll.
PCHMR_FUNCTION void ray_rotation(const Lens &lens, double x, double y, double roll, double *R) {
    const Vec3 r = unit(ray(lens, x, y));
    const double f = 1 / (1 + r.z), c = cos(roll), s = sin(roll);
    const double turn[3][2] = {
        {1 - f * r.x * r.x, -f * r.x * r.y}, {-f * r.x * r.y, 1 - f * r.y * r.y}, {-r.x, -r.y}};
    const double last[3] = {r.x, r.y, r.z};
    for (int i = 0; i < 3; ++i) {
        R[3 * i] = c * turn[i][0] + s * turn[i][1];
        R[3 * i + 1] = c * turn[i][1] - s * turn[i][0];
        R[3 * i + 2] = last[i];
    }
}

PCHMR_FUNCTION float logistic(float x) { return 0.5f * (1 + tanhf(0.5f * x)); }

// Moves a point to the centre of mass of map `n` of heatmaps (height, width, count), logits, in the
// window of `radius` cells about it; one outside the maps, or whose window peaks below 1/2, stays.
PCHMR_FUNCTION void refine_peak(const float *heatmaps, int height, int width, int count, int n,
                                float cell, int radius, float *x, float *y) {
    const float column = floorf(*x / cell), row = floorf(*y / cell);
    if (!(column >= 0 && column < width && row >= 0 && row < height)) return;  // or NaN
    const int left = int(column) > radius ? int(column) - radius : 0;
    const int top = int(row) > radius ? int(row) - radius : 0;
    const int right = int(column) + radius < width ? int(column) + radius : width - 1;
    const int bottom = int(row) + radius < height ? int(row) + radius : height - 1;
    float total = 0, mean_x = 0, mean_y = 0, peak = 0;
    for (int i = top; i <= bottom; ++i)
        for (int j = left; j <= right; ++j) {
            const float mass = 1 / (1 + expf(-heatmaps[(int64_t(i) * width + j) * count + n]));
            total += mass, mean_x += mass * j, mean_y += mass * i;
            peak = mass > peak ? mass : peak;
        }
    if (peak < 0.5f) return;
    *x = mean_x / total * cell, *y = mean_y / total * cell;
}

PCHMR_FUNCTION Vec3 unit_or_zero(Vec3 a) {
    const double length = norm(a);
    return (1 / (length > 1e-12 ? length : 1e-12)) * a;
}

// The rotation (3, 3) whose first two columns, row by row, were (3, 2) `columns`.
PCHMR_FUNCTION void rot6d_to_rotmat(const float *columns, double *R) {
    const Vec3 first = {columns[0], columns[2], columns[4]};
    const Vec3 second = {columns[1], columns[3], columns[5]};
    const Vec3 x = unit_or_zero(first), y = unit_or_zero(second - dot(x, second) * x);
    const Vec3 z = cross(x, y);
    R[0] = x.x, R[1] = y.x, R[2] = z.x;
    R[3] = x.y, R[4] = y.y, R[5] = z.y;
    R[6] = x.z, R[7] = y.z, R[8] = z.z;
}

PCHMR_FUNCTION Vec3 rotate(const double *R, Vec3 a) {
    return {dot(load(R), a), dot(load(R + 3), a), dot(load(R + 6), a)};
}

// The pixel, at depth 1, of a point in front of the camera.
PCHMR_FUNCTION void project(const Lens &lens, Vec3 point, double *x, double *y) {
    const double depth = point.z > kNearestProjected ? point.z : kNearestProjected;
    *x = point.x / depth * lens.fx + lens.cx, *y = point.y / depth * lens.fy + lens.cy;
}

// What an image landmark is off the lifter's own, both about `root` in the camera's frame: the image
// gives x and y, at the depth that the lifter and the world landmarks give, which is about the hips.
PCHMR_FUNCTION Vec3 landmark_residual(const Lens &lens, const double *keypoint, Vec3 lifted,
                                      double world_z, double hips_z, Vec3 root) {
    const double depth = (1 - kWorld) * lifted.z + kWorld * (world_z + hips_z) + root.z;
    const Vec3 seen =
        (depth > kNearestTarget ? depth : kNearestTarget) * ray(lens, keypoint[0], keypoint[1]);
    return keypoint[2] * (seen - root - lifted);
}

}  // namespace pchmr

#endif
