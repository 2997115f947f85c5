/* What one launch of the CUDA kernels reads (calibrate.cu), and the C ABI around them
 * (calibrate_launch.cu, built by nvcc). Every pointer is of the device, but those to these structs.
 */
#ifndef PCHMR_CUDA_H
#define PCHMR_CUDA_H

#include "pchmr_kernels.h"

#define PCHMR_CUDA_BLOCK 128        /* threads */
#define PCHMR_CUDA_TILE 128         /* vertices that a block moves at a time */
#define PCHMR_CUDA_ROWS 4           /* of the batch that a block takes at most */
#define PCHMR_CUDA_MAX_BATCH 65535  /* rows, the y side of a grid */
#define PCHMR_CUDA_SHARED 49152     /* bytes that every device gives a block unasked */
#define PCHMR_CUDA_BLOCKS_A_PROCESSOR 8

#ifdef __cplusplus
extern "C" {
#endif

/* An array of float32 or float64; null where there is none. */
typedef struct {
    const void *data;
    int32_t is_float64;
} pchmr_reals;

/* C_nmk of joint_tables.py by P pairs of joint and bone: those of joint m are first[m]..first[m + 1]. */
typedef struct {
    int32_t terms, pairs;
    const int32_t *first;  /* (J + 1) */
    const int32_t *bones;  /* (P) */
    const float *values;   /* (terms, P, 4) */
} pchmr_joint_tables;

typedef struct {
    /* indices null: dense, values (V, K) and offsets (V, K) or null; slots is K then. Else slots is 4
     * or 8 and the three arrays start on 16 bytes. offsets may be null where nothing is stretched. */
    pchmr_weights weights;
    /* Null, or (V): within each tile of PCHMR_CUDA_TILE rows of `weights` and `skin`, which vertex of
     * the tile a row is of. Rows sorted by their bones are read from shared memory without conflicts. */
    const uint8_t *places;
    pchmr_bones bones;
    int64_t batch;
    int32_t rows; /* of the batch that a block takes, 1..PCHMR_CUDA_ROWS; chosen by the C ABI */
    const void *vertices; /* (B, V, 3) float32 or FP16; out may be the same array */
    void *out;
    int32_t half; /* 1: vertices and out are FP16 */
    pchmr_reals source, target, confidence, alpha; /* calibrate: as pchmr_bone_transforms_f64 */
    /* blend: as pchmr_blend_f32. skin_calibrate, pose_joints: the skinning transforms. */
    const float *transforms, *delta, *centre;
    /* skin_calibrate: skinning weights, in slots or dense as `weights`; offsets are not read. */
    pchmr_weights skin;
    int32_t skin_bones;
    /* skin_calibrate without source, pose_joints (out: (B, J, 3) float32): coefficients (B, terms). */
    pchmr_joint_tables tables;
    const float *coefficients;
} pchmr_cuda_job;

/* Bytes of shared memory a block takes: by joints, bones, axes, skin_bones, tables and rows. */
PCHMR_API int32_t pchmr_cuda_shared_bytes(const pchmr_cuda_job *job);

/* Queue one launch on `stream` (a cudaStream_t) of the current device, and do not wait for it. Return
 * 0, or 1 after setting pchmr_cuda_last_error(). */
PCHMR_API int32_t pchmr_cuda_calibrate(const pchmr_cuda_job *job, void *stream);
PCHMR_API int32_t pchmr_cuda_skin_calibrate(const pchmr_cuda_job *job, void *stream);
PCHMR_API int32_t pchmr_cuda_blend(const pchmr_cuda_job *job, void *stream);
PCHMR_API int32_t pchmr_cuda_pose_joints(const pchmr_cuda_job *job, void *stream);
PCHMR_API const char *pchmr_cuda_last_error(void);

#ifdef __cplusplus
}
#endif

#endif
