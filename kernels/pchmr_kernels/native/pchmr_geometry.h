/* Geometry of people between the networks; part of the C ABI of the native library.
 *
 * B batch, J joints, N points. Arrays are contiguous and owned by the caller. lens: fx, fy, cx, cy. */
#ifndef PCHMR_GEOMETRY_ABI_H
#define PCHMR_GEOMETRY_ABI_H

#include "pchmr_kernels.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Skinning transforms (B, J, 3, 4) and joints (B, J, 3) of rotations to the parent (B, J, 3, 3) and
 * rest joints (B, J, 3). parents: (J), each before its children, below 0 at the root. */
PCHMR_API void pchmr_forward_kinematics_f64(int64_t batch, int32_t joints, const int32_t *parents,
                                            const double *rotmats, const double *rest,
                                            double *transforms, double *posed);

/* Translations (B, 3) that put points (B, N, 3) onto keypoints (B, N, 3) - x, y in pixels, weight -
 * by least squares; placed: (B), 0 where the fit fails and the nearest depth is taken. */
PCHMR_API void pchmr_solve_translation_f64(const double *lens, int64_t batch, int32_t points,
                                           const double *xyz, const double *keypoints,
                                           double *translation, uint8_t *placed);

/* Points of (B, N, numbers) - x, y in pixels, and what stays - as the cameras of crops see them, in
 * halves of each crop's side: (B, taken, numbers), of the columns named. rotation: (B, 3, 3) of each
 * crop's camera to the full one. side: (B) pixels. */
PCHMR_API void pchmr_points_to_crop_f64(const double *lens, int64_t batch, int32_t points,
                                        int32_t numbers, const double *pixels, int32_t taken,
                                        const int32_t *columns, const double *rotation,
                                        const double *side, float *out);

/* Rotations (B, 3, 3) from the frames of crops, z along their viewing rays, to the camera's: the
 * shortest turn onto the ray through centre (B, 2), after a roll (B) of radians, or none where null. */
PCHMR_API void pchmr_ray_rotation_f64(const double *lens, int64_t batch, const double *centre,
                                      const double *roll, double *rotation);

/* Points (B, N, 3) turned by (B, 3, 3). */
PCHMR_API void pchmr_rotate_f64(int64_t batch, int64_t points, const float *xyz,
                                const double *rotation, double *out);

/* Where the camera sees points (B, N, 3), moved by translation (B, 3): keypoints (B, N, 3), x and y in
 * pixels, and 1. */
PCHMR_API void pchmr_project_f64(const double *lens, int64_t batch, int32_t points, const float *xyz,
                                 const double *translation, double *keypoints);

/* Where one of the joints (B, J, 3) stands: places (B, 3), moved by translation (B, 3). */
PCHMR_API void pchmr_joint_places_f64(int64_t batch, int32_t joints, int32_t joint, const float *xyz,
                                      const double *translation, double *places);

/* Joints (B, J, 3), moved so that one of them stands at places (B, 3). */
PCHMR_API void pchmr_move_joints_f32(int64_t batch, int32_t joints, int32_t joint, const double *xyz,
                                     const double *places, float *out);

/* Points (B, N, 3) moved by (B, 3). */
PCHMR_API void pchmr_translate_f32(int64_t batch, int64_t points, const float *xyz,
                                   const float *shift, float *out);

#ifdef __cplusplus
}
#endif

#endif
