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

int32_t check_weights(const char *name, const pchmr_weights &weights, int32_t bones) {
    if (!weights.indices && weights.slots != bones)
        return fail("dense %s of %d bones; there are %d", name, weights.slots, bones);
    if (weights.indices && weights.slots != 4 && weights.slots != 8)
        return fail("%s.slots is %d; expected 4 or 8: pad with bone 0 and zeros", name,
                    weights.slots);
    return 0;
}

int32_t check(const pchmr_cuda_job &job) {
    const pchmr_bones &bones = job.bones;
    const int32_t most = PCHMR_MAX_JOINTS;
    if (bones.joints < 0 || bones.joints > most || bones.bones < 0 || bones.bones > most ||
        bones.n_axes < 0 || bones.n_axes > most || job.skin_bones < 0 || job.skin_bones > most)
        return fail("%d joints, %d bones, %d axes and %d skinning bones; at most %d of each",
                    bones.joints, bones.bones, bones.n_axes, job.skin_bones, most);
    if (job.batch < 0 || job.batch > PCHMR_CUDA_MAX_BATCH)
        return fail("a batch of %lld rows; at most %d: launch it in parts", (long long)job.batch,
                    PCHMR_CUDA_MAX_BATCH);
    return 0;
}

// Rows a block and the grid: as many rows as leave the device full, since a block reads its weights
// once for all of them; and no more blocks than fill it, since each turns the joints again.
int32_t launch(void (*kernel)(pchmr_cuda_job), pchmr_cuda_job job, int64_t vertices, void *stream) {
    if (job.batch == 0 || vertices == 0) return 0;
    int device = 0, processors = 0;
    cudaError_t error = cudaGetDevice(&device);
    if (error == cudaSuccess)
        error = cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device);
    if (error != cudaSuccess) return fail("%s", cudaGetErrorString(error));
    const int64_t full = PCHMR_CUDA_BLOCKS_A_PROCESSOR * processors;
    const int64_t tiles = (vertices + PCHMR_CUDA_TILE - 1) / PCHMR_CUDA_TILE;
    job.rows = PCHMR_CUDA_ROWS;
    if (job.batch * tiles < full * job.rows ||
        pchmr_cuda_shared_bytes(&job) > PCHMR_CUDA_SHARED)
        job.rows = 1;
    const int32_t shared = pchmr_cuda_shared_bytes(&job);
    const int64_t groups = (job.batch + job.rows - 1) / job.rows;
    const int64_t enough = (full + groups - 1) / groups;
    const dim3 grid(unsigned(tiles < enough ? tiles : enough), unsigned(groups));
    kernel<<<grid, PCHMR_CUDA_BLOCK, shared, static_cast<cudaStream_t>(stream)>>>(job);
    error = cudaGetLastError();
    return error == cudaSuccess ? 0 : fail("%s", cudaGetErrorString(error));
}

}  // namespace

const char *pchmr_cuda_last_error(void) { return last_error; }

int32_t pchmr_cuda_calibrate(const pchmr_cuda_job *job, void *stream) {
    if (check(*job) || check_weights("weights", job->weights, job->bones.bones)) return 1;
    return launch(pchmr_calibrate, *job, job->weights.vertices, stream);
}

int32_t pchmr_cuda_skin_calibrate(const pchmr_cuda_job *job, void *stream) {
    if (check(*job) || check_weights("weights", job->weights, job->bones.bones) ||
        check_weights("skin", job->skin, job->skin_bones))
        return 1;
    if (!job->skin.indices != !job->weights.indices ||
        (job->skin.indices && job->skin.slots != job->weights.slots))
        return fail("weights and skin differ in form: both dense, or both of as many slots");
    return launch(pchmr_skin_calibrate, *job, job->weights.vertices, stream);
}

int32_t pchmr_cuda_blend(const pchmr_cuda_job *job, void *stream) {
    if (check(*job) || check_weights("weights", job->weights, job->bones.bones)) return 1;
    return launch(pchmr_blend, *job, job->weights.vertices, stream);
}

int32_t pchmr_cuda_pose_joints(const pchmr_cuda_job *job, void *stream) {
    if (check(*job)) return 1;
    return launch(pchmr_pose_joints, *job, 1, stream);
}
