/* C ABI of the pchmr kernels: linear-blend skinning and the calibration of Luan et al. 2021.
 *
 * Arrays are contiguous, row-major and owned by the caller. B batch, V vertices, J joints, K bones,
 * S bones a vertex. Functions that can fail return 0, or 1 after setting pchmr_last_error(). All may be
 * called from several threads at once, pchmr_use_isa excepted.
 */
#ifndef PCHMR_KERNELS_H
#define PCHMR_KERNELS_H

#if defined(__CUDACC_RTC__) /* NVRTC has no headers */
typedef unsigned char uint8_t;
typedef int int32_t;
typedef long long int64_t;
#else
#include <stdint.h>
#endif

#define PCHMR_VERSION 3
#define PCHMR_MAX_JOINTS 128 /* and bones */
#define PCHMR_MAX_SLOTS 8    /* bones a vertex */
#define PCHMR_GROUP 16       /* coordinates of a mesh together in a basis */

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__CUDACC_RTC__) /* knows no function of the host */
#define PCHMR_API __device__
#elif defined(__GNUC__)
#define PCHMR_API __attribute__((visibility("default")))
#else
#define PCHMR_API
#endif

/* A and A * W of the paper by rows; a shorter row is padded with bone 0 and zeros. */
typedef struct {
    int64_t vertices;
    int32_t slots;          /* S, 1..PCHMR_MAX_SLOTS */
    const int32_t *indices; /* (V, S), each below the number of bones: not checked here */
    const float *values;    /* (V, S), A */
    const float *offsets;   /* (V, S), A * W; may be null where no delta is blended */
} pchmr_weights;

/* What is known of the bones before any pose. */
typedef struct {
    int32_t joints, bones;
    const int32_t *pairs; /* (K, 2) parent, child */
    const int32_t *order; /* (K) bones, each after the one that ends in its parent */
    int32_t root;
    int32_t n_axes;
    const int32_t *axes; /* (n_axes, 2) joints that span the body's axes */
    int32_t n_torso;
    const int32_t *torso; /* joints of the rigid pre-alignment; none: no pre-alignment */
    int32_t fit_scale;    /* 1: scale the target to the source's bone lengths first */
    double low, high;     /* confidence counts nothing below `low` and fully above `high` */
} pchmr_bones;

PCHMR_API int32_t pchmr_version(void);
PCHMR_API const char *pchmr_last_error(void);

/* Instruction sets this machine runs, best last, separated by blanks; the one in use; a choice. */
PCHMR_API const char *pchmr_isas(void);
PCHMR_API const char *pchmr_isa(void);
PCHMR_API int32_t pchmr_use_isa(const char *name);

/* out_j = sum_s value_js (R v_j + t)[index_js] + offset_js delta[index_js].
 *
 * vertices, out: (B, V, 3), may be one array. transforms: (B, K, 3, 4), R beside t. delta: (B, K, 3)
 * or null. centre: (B, 3) or null: taken off the vertices first and added last, so that float32 keeps
 * its precision far from the origin; transforms are about it. threads: at most so many. The result
 * does not depend on the place in the batch nor on the number of threads. */
PCHMR_API int32_t pchmr_blend_f32(const pchmr_weights *weights, int64_t batch, int32_t bones,
                                  const float *vertices, const float *transforms,
                                  const float *delta, const float *centre, float *out,
                                  int32_t threads);

/* Linear-blend skinning of a shaped mesh: vertices sum_n coefficient_n basis_n, blended by transforms
 * as above. coefficients: (B, N). basis: (G, N, PCHMR_GROUP): the template, shape and pose blend shapes
 * of the coordinates (V, 3), PCHMR_GROUP by PCHMR_GROUP, so that they are read in one go; 0 after the
 * last. */
PCHMR_API int32_t pchmr_skin_f32(const pchmr_weights *weights, int64_t batch, int32_t bones,
                                 int32_t terms, const float *coefficients, const float *basis,
                                 const float *transforms, float *out, int32_t threads);

/* Psi | T (B, K, 3, 4) and Delta (B, K, 3) of every bone about `centre` (B, 3), Eq. (6-10), after
 * pre-alignment, scale, root alignment and fading; the pre-alignment is folded into them.
 *
 * source, target: (B, J, 3), target NaN where missing. confidence: (B, J) or null. alpha: (B, K)
 * radians of self-rotation or null. */
PCHMR_API int32_t pchmr_bone_transforms_f64(const pchmr_bones *bones, int64_t batch,
                                            const double *source, const double *target,
                                            const double *confidence, const double *alpha,
                                            double *transforms, double *delta, double *centre);

/* Both in one call. */
PCHMR_API int32_t pchmr_calibrate_f32(const pchmr_bones *bones, const pchmr_weights *weights,
                                      int64_t batch, const float *vertices, const double *source,
                                      const double *target, const double *confidence,
                                      const double *alpha, float *out, int32_t threads);

#ifdef __cplusplus
}
#endif

#endif
