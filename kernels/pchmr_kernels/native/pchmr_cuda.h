/* What one launch of the CUDA kernels reads (calibrate.cu), and the C ABI around them
 * (calibrate_launch.cu, built by nvcc). Every pointer is of the device, but those to these structs.
 */
#ifndef PCHMR_CUDA_H
#define PCHMR_CUDA_H

#include "pchmr_kernels.h"

#define PCHMR_CUDA_BLOCK 128        /* threads */
#define PCHMR_CUDA_MAX_BATCH 65535  /* rows, the y side of a grid */
#define PCHMR_CUDA_BLOCKS_A_PROCESSOR 8

#ifdef __cplusplus
extern "C" {
#endif

/* An array of float32 or float64; null where there is none. */
typedef struct {
    const void *data;
    int32_t is_float64;
} pchmr_reals;

typedef struct {
    /* indices null: dense, values (V, K) and offsets (V, K) or null; slots is K then. Else slots is 4
     * or 8 and the three arrays start on 16 bytes. offsets may be null where nothing is stretched. */
    pchmr_weights weights;
    pchmr_bones bones;
    int64_t batch;
    const void *vertices; /* (B, V, 3) float32 or FP16; out may be the same array */
    void *out;
    int32_t half; /* 1: vertices and out are FP16 */
    pchmr_reals source, target, confidence, alpha; /* calibrate: as pchmr_bone_transforms_f64 */
    const float *transforms, *delta, *centre;      /* blend: as pchmr_blend_f32 */
} pchmr_cuda_job;

/* Bytes of shared memory a block of `calibrate` takes; `blend` takes no more. */
PCHMR_API int32_t pchmr_cuda_shared_bytes(int32_t joints, int32_t bones, int32_t n_axes);

/* Queue one launch on `stream` (a cudaStream_t) of the current device, and do not wait for it. Return
 * 0, or 1 after setting pchmr_cuda_last_error(). */
PCHMR_API int32_t pchmr_cuda_calibrate(const pchmr_cuda_job *job, void *stream);
PCHMR_API int32_t pchmr_cuda_blend(const pchmr_cuda_job *job, void *stream);
PCHMR_API const char *pchmr_cuda_last_error(void);

#ifdef __cplusplus
}
#endif

#endif
