/* What lies between the networks of a followed person; part of the C ABI of the native library.
 *
 * B batch, J joints, N points. Arrays are contiguous and owned by the caller. lens: fx, fy, cx, cy. A
 * region (4): x, y of its middle and its side in pixels, and its turn in radians, clockwise. */
#ifndef PCHMR_PERSON_ABI_H
#define PCHMR_PERSON_ABI_H

#include "pchmr_kernels.h"

#define PCHMR_LANDMARKS 33       /* of a person */
#define PCHMR_LANDMARK_POINTS 39 /* of the network, two auxiliary ones after the landmarks */

#ifdef __cplusplus
extern "C" {
#endif

/* A person as the landmark network sees one, in the frame; see pchmr/blazepose.py. */
typedef struct {
    float keypoints_2d[PCHMR_LANDMARKS][3];
    float presence[PCHMR_LANDMARKS];
    float depth_px[PCHMR_LANDMARKS];
    float auxiliary[2][2];
    float world[PCHMR_LANDMARKS][3];
    float score; /* 0 where a point in the image is no number */
    double region[4];      /* where the network looked */
    double next_region[4]; /* where it is to look in the next frame */
} pchmr_landmarks;

/* The network's answer in the frame: found (B).
 *
 * points: (B, 39, 5), x, y, z in pixels of the crop, logits of visibility and presence. scores: (B).
 * world: (B, 39, 3) metres. heatmaps: (B, map_size, map_size, 39) logits that refine x and y in windows
 * of `radius` cells, or null. regions: (B, 4) that the crops, `crop_size` pixels to a side, show. */
PCHMR_API void pchmr_decode_landmarks_f32(int64_t batch, int32_t crop_size, const float *points,
                                          const float *scores, const float *world,
                                          const float *heatmaps, int32_t map_size, int32_t radius,
                                          const double *regions, pchmr_landmarks *found);

/* People before the camera, as the stages between the networks take them: image keypoints (B, 33, 3) - x,
 * y, visibility -; world landmarks (B, 33, 3) turned onto each crop's viewing ray; rotation (B, 3, 3) from
 * the crop's camera to the frame's; the crop's side (B), pixels; and the upright box (B, 4) x0, y0, x1,
 * y1, cut to the frame, around the keypoints of more visibility than `seen`, which `visible` (B) counts,
 * or around all where there is none. frame: (2) its width and height. */
PCHMR_API void pchmr_view_people_f64(const double *lens, const double *frame, int64_t batch,
                                     const pchmr_landmarks *found, double seen, double *keypoints,
                                     double *world, double *rotation, double *side, double *box,
                                     int64_t *visible);

/* Rotations (B, J, 3, 3) of their first two columns, row by row (B, J, 6), made orthonormal; the first
 * joint's turned by root (B, 3, 3). */
PCHMR_API void pchmr_pose_rotmats_f64(int64_t batch, int32_t joints, const float *rot6d,
                                      const double *root, double *rotmats);

/* The parallel form's target joints (B, J, 3) about `root` (B, 3), in the camera's frame, and their
 * confidence (B, J): the lifter's joints (B, J, 3), moved by what the image keypoints (B, 33, 3) are off
 * its landmarks (B, 33, 3) at the depth of these and of the world landmarks (B, 33, 3).
 * carry, trust: (J, 33), how a landmark moves each joint and vouches for it. */
PCHMR_API void pchmr_image_target_f64(const double *lens, int64_t batch, int32_t joints,
                                      const double *lifted_joints, const double *lifted_landmarks,
                                      const double *keypoints, const double *world,
                                      const double *root, const float *carry, const float *trust,
                                      double *target, double *confidence);

#ifdef __cplusplus
}
#endif

#endif
