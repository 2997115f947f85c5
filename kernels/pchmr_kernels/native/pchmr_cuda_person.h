/* What the kernels of person.cu read and write: the arrays of one batch of people. Each kernel takes
 * its own of them (cuda_person.py), the rest may be null. Pointers are of the device.
 *
 * B rows, J joints of the body, T of the target, S shapes, N terms, V vertices, K columns. */
#ifndef PCHMR_CUDA_PERSON_H
#define PCHMR_CUDA_PERSON_H

#include "pchmr_cuda.h"

#define PCHMR_PERSON_LANDMARKS 33 /* of a person */
#define PCHMR_PERSON_POINTS 39    /* of the network, two auxiliary ones after the landmarks */
#define PCHMR_PERSON_RADIUS 4     /* heat map cells: a 9 x 9 window */

typedef struct {
    int32_t batch, joints, target_joints, shapes, terms, vertices, columns_taken;
    int32_t crop_size, map_size; /* pixels and cells to a side */
    const double *lens;          /* (4) fx, fy, cx, cy */

    /* person_crops: where each person's crop looks. A region: x, y, size, angle. */
    double *next_roi; /* (B, 4), written by person_landmarks */
    double *roi;      /* (B, 4) of this frame */
    double *affine;   /* (B, 2, 3) from the crop's pixels to the frame's */
    double *rotation; /* (B, 3, 3) from the crop's camera to the frame's */

    /* person_landmarks: the network's answer in the frame. */
    const float *landmarks; /* (B, 39, 5): x, y, z in crop pixels, logits of visibility, presence */
    const float *world;     /* (B, 39, 3) metres */
    const float *heatmaps;  /* (B, map_size, map_size, 39) logits; may be null */
    double *keypoints;      /* (B, 33, 3): x, y, visibility */
    double *world_view;     /* (B, 33, 3) turned onto the crop's viewing ray */
    double *world_upright;  /* (B, 33, 3) with the crop's roll undone; this and what follows or null */
    double *presence;       /* (B, 33) */
    double *depth;          /* (B, 33) pixels */
    double *auxiliary;      /* (B, 2, 2) */

    /* person_points, person_projection: keypoints as a network over the crop takes them. */
    const int32_t *columns;      /* (K) which landmarks */
    const float *mesh_landmarks; /* (B, 33, 3), of the projection */
    float *points;               /* (B, K, 3) */

    /* person_pose, person_shape: the generator's answer as a posed body. */
    const float *rot6d, *betas;   /* (B, J, 6), (B, S) */
    const int32_t *parents;       /* (J) */
    const double *rest;           /* (1 + S, J, 3) joints of the template, then shape's share */
    const float *basis;           /* (N, V, 3) template, shape and pose blend shapes */
    double *rotmats;              /* (B, J, 3, 3) */
    float *transforms;            /* (B, J, 3, 4) */
    float *coefficients;          /* (B, N): 1, betas, and R - I of every joint but the root */
    float *shaped;                /* (B, V, 3) at rest */

    /* person_place. */
    double *translation; /* (B, 3) metres */
    double *placed;      /* (B) 1 where the fit held */

    /* person_lifted, person_target: the lifter's answer as the target pose. */
    const float *lifted_joints;    /* (B, T, 3) */
    const float *lifted_landmarks; /* (B, 33, 3) */
    const float *source;           /* (B, T, 3) */
    const float *carry, *trust;    /* (T, 33) */
    double *target;                /* (B, T, 3) */
    double *confidence;            /* (B, T) */
} pchmr_cuda_person;

#endif
