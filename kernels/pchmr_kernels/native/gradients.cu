// Gradients of V_j = sum_i A_ji (R_i v_j + t_i) + (A W)_ji Delta_i with dense A, for training. Sums go in
// a fixed order, so that a gradient is the same every time.
#include "gradients.h"

namespace pchmr {

struct Gradients {
    const Real *vertices, *transforms, *delta, *values, *offsets, *gradient;
    int64_t V;
    int K;

    __device__ explicit Gradients(const pchmr_cuda_gradients &job)
        : vertices((const Real *)job.vertices),
          transforms((const Real *)job.transforms),
          delta((const Real *)job.delta),
          values((const Real *)job.values),
          offsets((const Real *)job.offsets),
          gradient((const Real *)job.gradient),
          V(job.vertices_count),
          K(job.bones) {}
};

constexpr int kSums = 15;  // of a bone: 12 of its transform, 3 of its delta

}  // namespace pchmr

// sum_i A_ji R_i^T g_j. x of the grid: vertices; y: the batch.
extern "C" __global__ void __launch_bounds__(PCHMR_CUDA_BLOCK, 8)
    pchmr_blend_grad_vertices(pchmr_cuda_gradients job) {
    using pchmr::Real;
    PCHMR_SHARED(memory);
    pchmr::Quad *records = (pchmr::Quad *)memory;
    const pchmr::Gradients in(job);
    const int64_t row = blockIdx.y;
    pchmr::load_records(in.transforms, nullptr, row * in.K, in.K, pchmr::kSkinRecord, records);
    __syncthreads();
    const int64_t step = (int64_t)gridDim.x * blockDim.x;
    for (int64_t j = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; j < in.V; j += step) {
        const Real *g = in.gradient + 3 * (row * in.V + j);
        pchmr::Quad sum = {0, 0, 0, 0};
        for (int k = 0; k < in.K; ++k) {
            const Real a = in.values[j * in.K + k];
            for (int r = 0; r < 3; ++r)
                pchmr::add(sum, records[k * pchmr::kSkinRecord + r], a * g[r]);
        }
        Real *out = (Real *)job.grad_vertices + 3 * (row * in.V + j);
        out[0] = sum.x, out[1] = sum.y, out[2] = sum.z;
    }
}

// sum_j A_ji g_j [v_j; 1]^T and sum_j (A W)_ji g_j. x of the grid: bones; y: the batch. The threads of a
// block, a power of two, share the vertices out and add up by halves.
extern "C" __global__ void __launch_bounds__(PCHMR_CUDA_BLOCK)
    pchmr_blend_grad_bones(pchmr_cuda_gradients job) {
    using pchmr::kSums;
    using pchmr::Real;
    PCHMR_SHARED(memory);
    Real *sums = (Real *)memory;
    const pchmr::Gradients in(job);
    const int64_t row = blockIdx.y;
    const int k = blockIdx.x;
    Real sum[kSums] = {};
    for (int64_t j = threadIdx.x; j < in.V; j += blockDim.x) {
        const Real a = in.values[j * in.K + k], o = in.offsets ? in.offsets[j * in.K + k] : 0;
        if (a == 0 && o == 0) continue;
        const Real *v = in.vertices + 3 * (row * in.V + j), *g = in.gradient + 3 * (row * in.V + j);
        for (int r = 0; r < 3; ++r) {
            for (int c = 0; c < 3; ++c) sum[4 * r + c] += a * g[r] * v[c];
            sum[4 * r + 3] += a * g[r];
            sum[12 + r] += o * g[r];
        }
    }
    for (int i = 0; i < kSums; ++i) sums[i * blockDim.x + threadIdx.x] = sum[i];
    for (unsigned half = blockDim.x / 2; half; half /= 2) {
        __syncthreads();
        if (threadIdx.x < half)
            for (int i = 0; i < kSums; ++i)
                sums[i * blockDim.x + threadIdx.x] += sums[i * blockDim.x + threadIdx.x + half];
    }
    __syncthreads();
    const int64_t bone = row * in.K + k;
    for (unsigned i = threadIdx.x; i < kSums; i += blockDim.x) {
        Real *out = i < 12 ? (Real *)job.grad_transforms : (Real *)job.grad_delta;
        if (out) out[i < 12 ? 12 * bone + i : 3 * bone + i - 12] = sums[i * blockDim.x];
    }
}

// sum_b g_bj . (R_bi v_bj + t_bi) and sum_b g_bj . Delta_bi: a thread a pair of vertex and bone.
extern "C" __global__ void __launch_bounds__(PCHMR_CUDA_BLOCK)
    pchmr_blend_grad_weights(pchmr_cuda_gradients job) {
    using pchmr::Real;
    const pchmr::Gradients in(job);
    const int64_t step = (int64_t)gridDim.x * blockDim.x, pairs = in.V * in.K;
    for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < pairs; i += step) {
        const int64_t j = i / in.K, k = i % in.K;
        Real value = 0, offset = 0;
        for (int64_t row = 0; row < job.batch; ++row) {
            const Real *v = in.vertices + 3 * (row * in.V + j);
            const Real *g = in.gradient + 3 * (row * in.V + j);
            const Real *m = in.transforms + 12 * (row * in.K + k);
            for (int r = 0; r < 3; ++r)
                value += g[r] * (m[4 * r] * v[0] + m[4 * r + 1] * v[1] + m[4 * r + 2] * v[2] +
                                 m[4 * r + 3]);
            if (in.delta) {
                const Real *d = in.delta + 3 * (row * in.K + k);
                offset += g[0] * d[0] + g[1] * d[1] + g[2] * d[2];
            }
        }
        if (job.grad_values) ((Real *)job.grad_values)[i] = value;
        if (job.grad_offsets) ((Real *)job.grad_offsets)[i] = offset;
    }
}
