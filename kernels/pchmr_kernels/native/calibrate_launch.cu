// The C ABI around the CUDA kernels: limits, the shape of the grid, errors.
#include <cstdarg>
#include <cstdio>

#include "calibrate.cu"

namespace {

thread_local char last_error[256] = "";

int32_t fail(const char *format, ...) {
    va_list values;
    va_start(values, format);
    std::vsnprintf(last_error, sizeof last_error, format, values);
    va_end(values);
    return 1;
}

int32_t check(const pchmr_cuda_job &job) {
    const pchmr_weights &weights = job.weights;
    const pchmr_bones &bones = job.bones;
    if (bones.joints < 0 || bones.joints > PCHMR_MAX_JOINTS || bones.bones < 0 ||
        bones.bones > PCHMR_MAX_JOINTS || bones.n_axes < 0 || bones.n_axes > PCHMR_MAX_JOINTS)
        return fail("%d joints, %d bones and %d axes; at most %d of each", bones.joints,
                    bones.bones, bones.n_axes, PCHMR_MAX_JOINTS);
    if (job.batch < 0 || job.batch > PCHMR_CUDA_MAX_BATCH)
        return fail("a batch of %lld rows; at most %d: launch it in parts", (long long)job.batch,
                    PCHMR_CUDA_MAX_BATCH);
    if (!weights.indices && weights.slots != bones.bones)
        return fail("dense weights of %d bones; there are %d", weights.slots, bones.bones);
    if (weights.indices && weights.slots != 4 && weights.slots != 8)
        return fail("weights.slots is %d; expected 4 or 8: pad with bone 0 and zeros",
                    weights.slots);
    return 0;
}

int32_t launch(void (*kernel)(pchmr_cuda_job), const pchmr_cuda_job &job, void *stream) {
    if (check(job)) return 1;
    if (job.batch == 0 || job.weights.vertices == 0) return 0;
    int device = 0, processors = 0;
    cudaError_t error = cudaGetDevice(&device);
    if (error == cudaSuccess)
        error = cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device);
    if (error != cudaSuccess) return fail("%s", cudaGetErrorString(error));
    // Every block turns the joints again: no more of them than fill the device.
    const int64_t most = (job.weights.vertices + PCHMR_CUDA_BLOCK - 1) / PCHMR_CUDA_BLOCK;
    const int64_t enough = (PCHMR_CUDA_BLOCKS_A_PROCESSOR * processors + job.batch - 1) / job.batch;
    const dim3 grid(unsigned(most < enough ? most : enough), unsigned(job.batch));
    const int32_t shared =
        pchmr_cuda_shared_bytes(job.bones.joints, job.bones.bones, job.bones.n_axes);
    kernel<<<grid, PCHMR_CUDA_BLOCK, shared, static_cast<cudaStream_t>(stream)>>>(job);
    error = cudaGetLastError();
    return error == cudaSuccess ? 0 : fail("%s", cudaGetErrorString(error));
}

}  // namespace

const char *pchmr_cuda_last_error(void) { return last_error; }

int32_t pchmr_cuda_calibrate(const pchmr_cuda_job *job, void *stream) {
    return launch(pchmr_calibrate, *job, stream);
}

int32_t pchmr_cuda_blend(const pchmr_cuda_job *job, void *stream) {
    return launch(pchmr_blend, *job, stream);
}
