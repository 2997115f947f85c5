/* A body's joints before and after skinning; part of the C ABI of the native library.
 *
 * B batch, J joints, S shapes, N terms, V vertices. Arrays are contiguous and owned by the caller. */
#ifndef PCHMR_BODY_H
#define PCHMR_BODY_H

#include "pchmr_kernels.h"

#ifdef __cplusplus
extern "C" {
#endif

/* What skinning takes, of rotations to the parent (B, J, 3, 3) and betas (B, S): transforms (B, J, 3, 4)
 * and coefficients (B, N) - 1, the betas and, for 9 (J - 1) further terms, R - I of every joint but the
 * root - and the posed joints (B, J, 3). parents: (J), each before its children, below 0 at the root.
 * rest: (1 + S, J, 3), joints of the template and what each shape moves them by. transl: (B, 3) that
 * moves the body, or null. */
PCHMR_API void pchmr_pose_body_f64(int64_t batch, int32_t joints, int32_t shapes, int32_t terms,
                                   const int32_t *parents, const double *rest,
                                   const double *rotmats, const double *betas, const double *transl,
                                   float *transforms, float *coefficients, double *posed);

/* Joints (B, J, 3) of vertices (B, V, 3): joint j is the sum of values times the vertices of indices,
 * from starts_j to starts_(j + 1). */
PCHMR_API void pchmr_regress_f32(int64_t batch, int64_t vertices, const float *xyz, int32_t joints,
                                 const int32_t *starts, const int32_t *indices, const float *values,
                                 float *out);

#ifdef __cplusplus
}
#endif

#endif
