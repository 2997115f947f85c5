// The arithmetic between the networks of a tracked person, one joint or person at a time, in float64.
//
// Written once for the host compiler, nvcc and NVRTC, as calibration.h is.
#ifndef PCHMR_GEOMETRY_H
#define PCHMR_GEOMETRY_H

#include "calibration.h"

namespace pchmr {

struct Lens {
    double fx, fy, cx, cy;  // pixels
};

constexpr double kNearest = 0.3;  // metres; a body closer to the lens cannot be seen whole

// The point at depth 1 that is seen at a pixel.
PCHMR_FUNCTION Vec3 ray(const Lens &lens, double x, double y) {
    return {(x - lens.cx) / lens.fx, (y - lens.cy) / lens.fy, 1};
}

// Where the camera of a crop, turned by R to the full one, sees a ray: in halves of the crop's side.
PCHMR_FUNCTION void ray_to_crop(const Lens &lens, const double *R, double side, Vec3 ray,
                                double *x, double *y) {
    const double depth = R[2] * ray.x + R[5] * ray.y + R[8] * ray.z;
    const double scale = 2 * lens.fx / side / (depth > 1e-3 ? depth : 1e-3);
    *x = scale * (R[0] * ray.x + R[3] * ray.y + R[6] * ray.z);
    *y = scale * (R[1] * ray.x + R[4] * ray.y + R[7] * ray.z);
}

// The translation that puts points (n, 3) onto keypoints (n, 3), x and y in pixels and a weight, by
// least squares; false where it fails, and then a guess at the nearest depth. Each point gives
// t_x - a t_z = a Z - X with a = (x - cx) / fx, and likewise in y; eliminating t_x and t_y from the
// normal equations leaves one equation for t_z.
PCHMR_FUNCTION bool solve_translation(const Lens &lens, int n, const double *points,
                                      const double *keypoints, double *translation) {
    double total = 0, nearest = 1e300;
    Vec3 a = {0, 0, 0}, r = {0, 0, 0};  // means of the rays and of what each point is off
    for (int i = 0; i < n; ++i) {
        const double *k = keypoints + 3 * i, *p = points + 3 * i;
        const double w = k[2] > 1e-6 ? k[2] : 1e-6;
        const Vec3 seen = ray(lens, k[0], k[1]);
        total += w;
        a = a + w * seen;
        r = r + w * (p[2] * seen - load(p));
        if (!(p[2] >= nearest)) nearest = p[2];
    }
    a = (1 / total) * a, r = (1 / total) * r;
    double spread = 0, moment = 0;
    for (int i = 0; i < n; ++i) {
        const double *k = keypoints + 3 * i, *p = points + 3 * i;
        const double w = k[2] > 1e-6 ? k[2] : 1e-6;
        const Vec3 seen = ray(lens, k[0], k[1]), off = seen - a;  // no z
        spread += w * dot(off, off);
        moment += w * dot(off, p[2] * seen - load(p));
    }
    const double depth = -moment / (spread > 1e-12 ? spread : 1e-12), least = kNearest - nearest;
    const bool placed = isfinite(depth) && depth > least && spread > 1e-12;
    const double z = placed ? depth : least;
    translation[0] = r.x + a.x * z, translation[1] = r.y + a.y * z, translation[2] = z;
    return placed;
}

// A joint's transform from the rest pose, (3, 4), and its place, from its parent's; rotmat (3, 3) is
// the turn to the parent, rest and parent_rest where both joints rest. The root has no parent.
PCHMR_FUNCTION void pose_joint(const double *rotmat, Vec3 rest, const double *parent,
                               Vec3 parent_rest, Vec3 parent_joint, double *transform,
                               Vec3 *joint) {
    const Mat3 own = {{load(rotmat), load(rotmat + 3), load(rotmat + 6)}};
    Mat3 world = own;
    *joint = rest;
    if (parent) {
        const Mat3 above = {{load(parent), load(parent + 4), load(parent + 8)}};
        world = above * own;
        *joint = parent_joint + above * (rest - parent_rest);
    }
    const Vec3 shift = *joint - world * rest;
    for (int i = 0; i < 3; ++i) {
        transform[4 * i] = world.row[i].x, transform[4 * i + 1] = world.row[i].y;
        transform[4 * i + 2] = world.row[i].z;
    }
    transform[3] = shift.x, transform[7] = shift.y, transform[11] = shift.z;
}

// The same of all joints (n), each after its parent: transforms (n, 3, 4) and places (n, 3).
PCHMR_FUNCTION void pose_joints(int n, const int32_t *parents, const double *rotmats,
                                const double *rest, double *transforms, double *posed) {
    for (int j = 0; j < n; ++j) {
        const int32_t p = parents[j];
        Vec3 joint;
        pose_joint(rotmats + 9 * j, load(rest + 3 * j), p < 0 ? nullptr : transforms + 12 * p,
                   p < 0 ? Vec3{} : load(rest + 3 * p), p < 0 ? Vec3{} : load(posed + 3 * p),
                   transforms + 12 * j, &joint);
        posed[3 * j] = joint.x, posed[3 * j + 1] = joint.y, posed[3 * j + 2] = joint.z;
    }
}

}  // namespace pchmr

#endif
