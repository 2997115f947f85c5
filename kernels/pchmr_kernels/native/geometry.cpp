#include "pchmr_geometry.h"

#include "person.h"

using namespace pchmr;

extern "C" void pchmr_forward_kinematics_f64(int64_t batch, int32_t joints, const int32_t *parents,
                                             const double *rotmats, const double *rest,
                                             double *transforms, double *posed) {
    for (int64_t row = 0; row < batch; ++row)
        pose_joints(joints, parents, rotmats + row * joints * 9, rest + row * joints * 3,
                    transforms + row * joints * 12, posed + row * joints * 3);
}

extern "C" void pchmr_solve_translation_f64(const double *lens, int64_t batch, int32_t points,
                                            const double *xyz, const double *keypoints,
                                            double *translation, uint8_t *placed) {
    const Lens camera = {lens[0], lens[1], lens[2], lens[3]};
    for (int64_t row = 0; row < batch; ++row)
        placed[row] =
            solve_translation(camera, points, xyz + row * points * 3, keypoints + row * points * 3,
                              translation + 3 * row);
}

extern "C" void pchmr_points_to_crop_f64(const double *lens, int64_t batch, int32_t points,
                                         int32_t numbers, const double *pixels, int32_t taken,
                                         const int32_t *columns, const double *rotation,
                                         const double *side, float *out) {
    const Lens camera = {lens[0], lens[1], lens[2], lens[3]};
    for (int64_t row = 0; row < batch; ++row)
        for (int32_t i = 0; i < taken; ++i, out += numbers) {
            const double *pixel = pixels + numbers * (row * points + columns[i]);
            double x, y;
            ray_to_crop(camera, rotation + 9 * row, side[row], ray(camera, pixel[0], pixel[1]), &x,
                        &y);
            out[0] = float(x), out[1] = float(y);
            for (int32_t n = 2; n < numbers; ++n) out[n] = float(pixel[n]);
        }
}

extern "C" void pchmr_ray_rotation_f64(const double *lens, int64_t batch, const double *centre,
                                       const double *roll, double *rotation) {
    const Lens camera = {lens[0], lens[1], lens[2], lens[3]};
    for (int64_t row = 0; row < batch; ++row)
        ray_rotation(camera, centre[2 * row], centre[2 * row + 1], roll ? roll[row] : 0,
                     rotation + 9 * row);
}

extern "C" void pchmr_rotate_f64(int64_t batch, int64_t points, const float *xyz,
                                 const double *rotation, double *out) {
    for (int64_t row = 0; row < batch; ++row) {
        const double *R = rotation + 9 * row;
        const Mat3 turn = {{load(R), load(R + 3), load(R + 6)}};
        for (int64_t i = row * points * 3; i < (row + 1) * points * 3; i += 3) {
            const Vec3 turned = turn * Vec3{xyz[i], xyz[i + 1], xyz[i + 2]};
            out[i] = turned.x, out[i + 1] = turned.y, out[i + 2] = turned.z;
        }
    }
}

extern "C" void pchmr_project_f64(const double *lens, int64_t batch, int32_t points, const float *xyz,
                                  const double *translation, double *keypoints) {
    const Lens camera = {lens[0], lens[1], lens[2], lens[3]};
    for (int64_t row = 0; row < batch; ++row, translation += 3)
        for (int32_t n = 0; n < points; ++n, xyz += 3, keypoints += 3) {
            const Vec3 point = Vec3{xyz[0], xyz[1], xyz[2]} + load(translation);
            project(camera, point, keypoints, keypoints + 1);
            keypoints[2] = 1;
        }
}

extern "C" void pchmr_joint_places_f64(int64_t batch, int32_t joints, int32_t joint,
                                       const float *xyz, const double *translation,
                                       double *places) {
    for (int64_t row = 0; row < batch; ++row)
        for (int i = 0; i < 3; ++i)
            places[3 * row + i] = translation[3 * row + i] + xyz[3 * (row * joints + joint) + i];
}

extern "C" void pchmr_move_joints_f32(int64_t batch, int32_t joints, int32_t joint,
                                      const double *xyz, const double *places, float *out) {
    for (int64_t row = 0; row < batch; ++row, xyz += 3 * joints) {
        const Vec3 shift = load(places + 3 * row) - load(xyz + 3 * joint);
        for (int32_t j = 0; j < joints; ++j, out += 3) {
            const Vec3 moved = load(xyz + 3 * j) + shift;
            out[0] = float(moved.x), out[1] = float(moved.y), out[2] = float(moved.z);
        }
    }
}

extern "C" void pchmr_translate_f32(int64_t batch, int64_t points, const float *xyz,
                                    const float *shift, float *out) {
    for (int64_t row = 0; row < batch; ++row) {
        const float x = shift[3 * row], y = shift[3 * row + 1], z = shift[3 * row + 2];
        for (int64_t i = row * points * 3; i < (row + 1) * points * 3; i += 3)
            out[i] = xyz[i] + x, out[i + 1] = xyz[i + 1] + y, out[i + 2] = xyz[i + 2] + z;
    }
}
