// The fused calibration: joints and vertices in, calibrated vertices out, in one launch.
//
// A row of the batch is a y of the grid. Every block turns the row's joints into bone transforms, in
// float64 and in shared memory (`row_transforms` of calibration.h with a thread a joint or bone), then
// blends its share of the vertices in float32. The result of a vertex depends neither on the shape of
// the grid nor on its place in the batch. Compiled by NVRTC and nvcc, and, with the three things under
// PCHMR_SHIM replaced, by the host compiler for the tests.
#include "calibration.h"
#include "pchmr_cuda.h"

namespace pchmr {

struct Half {
    unsigned short bits;
};

#ifndef PCHMR_SHIM
#define PCHMR_SHARED(name) extern __shared__ float4 name[]
__device__ static inline float widen(Half h) {
    float wide;
    asm("cvt.f32.f16 %0, %1;" : "=f"(wide) : "h"(h.bits));
    return wide;
}
__device__ static inline void narrow(float wide, Half &h) {
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(h.bits) : "f"(wide));
}
#endif
__device__ static inline float widen(float x) { return x; }
__device__ static inline void narrow(float x, float &y) { y = x; }

// A bone in shared memory: the columns of R and t, each padded to four, then delta. 5 is odd, so that
// eight neighbouring bones, read 16 bytes at a time, lie in different banks.
constexpr int kQuads = 5;

struct Frame {
    Mat3 R;  // the pre-alignment: v -> R v + shift
    Vec3 shift, centre;
    double scale;
};

struct Block {
    float4 *records;  // (K, kQuads)
    Frame *frame;
    Vec3 *source, *target, *faded;  // (J)
    double *weight;                 // (J)
    Vec3 *axes, *b;                 // (n_axes), (K) the faded bones
};

__device__ static inline Block layout(const pchmr_bones &bones, float4 *memory) {
    Block block;
    block.records = memory;
    block.frame = (Frame *)(block.records + bones.bones * kQuads);
    block.source = (Vec3 *)(block.frame + 1);
    block.target = block.source + bones.joints;
    block.faded = block.target + bones.joints;
    block.axes = block.faded + bones.joints;
    block.b = block.axes + bones.n_axes;
    block.weight = (double *)(block.b + bones.bones);
    return block;
}

__device__ static inline double read(pchmr_reals array, int64_t i) {
    return array.is_float64 ? ((const double *)array.data)[i] : ((const float *)array.data)[i];
}
__device__ static inline Vec3 read_joint(pchmr_reals array, int64_t joint) {
    return {read(array, 3 * joint), read(array, 3 * joint + 1), read(array, 3 * joint + 2)};
}

__device__ static inline void write_record(const Mat3 &R, Vec3 t, Vec3 delta, float4 *record) {
    const Vec3 *r = R.row;
    record[0] = {(float)r[0].x, (float)r[1].x, (float)r[2].x, 0};
    record[1] = {(float)r[0].y, (float)r[1].y, (float)r[2].y, 0};
    record[2] = {(float)r[0].z, (float)r[1].z, (float)r[2].z, 0};
    record[3] = {(float)t.x, (float)t.y, (float)t.z, 0};
    record[4] = {(float)delta.x, (float)delta.y, (float)delta.z, 0};
}

// The records of all bones of a row, and its centre. Steps as in `row_transforms`.
__device__ static inline void calibrate_bones(const pchmr_cuda_job &job, int64_t row,
                                              const Block &block) {
    const pchmr_bones &bones = job.bones;
    const int first = threadIdx.x, step = blockDim.x, J = bones.joints, K = bones.bones;
    Frame &frame = *block.frame;

    // 0. About the root; what is missing weighs nothing.
    const Vec3 root = read_joint(job.source, row * J + bones.root);
    const Vec3 origin = {(float)root.x, (float)root.y, (float)root.z};
    for (int j = first; j < J; j += step) {
        const Vec3 own = read_joint(job.source, row * J + j) - origin;
        const Vec3 seen = read_joint(job.target, row * J + j) - origin;
        double weight = 0;
        if (norm(seen) <= 1e300)  // false for NaN
            weight = job.confidence.data
                         ? joint_weight(read(job.confidence, row * J + j), bones.low, bones.high)
                         : 1;
        block.source[j] = own;
        block.target[j] = weight == 0 ? own : seen;
        block.weight[j] = weight;
    }
    __syncthreads();
    if (first == 0) {
        const Vec3 left = root - origin;  // what rounding the centre left over
        frame.R = bones.n_torso ? torso_rotation(bones, block.source, block.target, block.weight)
                                : identity();
        frame.shift = left - frame.R * left;
        frame.centre = origin;
    }
    __syncthreads();
    for (int j = first; j < J; j += step)
        block.source[j] = frame.R * block.source[j] + frame.shift;
    __syncthreads();
    if (first == 0)
        frame.scale = bones.fit_scale
                          ? fitting_scale(bones, block.source, block.target, block.weight)
                          : 1;
    for (int i = first; i < bones.n_axes; i += step)
        block.axes[i] = block.source[bones.axes[2 * i]] - block.source[bones.axes[2 * i + 1]];
    __syncthreads();

    // 1. Bone vectors, faded; the skeleton is put together again from the root.
    for (int j = first; j < J; j += step) {
        const Vec3 aligned = frame.scale * (block.target[j] - block.target[bones.root]) +
                             block.source[bones.root];
        const double share = block.weight[j] * block.weight[bones.root];
        block.faded[j] = block.source[j] + share * (aligned - block.source[j]);
    }
    for (int k = first; k < K; k += step) {
        const int p = bones.pairs[2 * k], c = bones.pairs[2 * k + 1];
        const double share =
            block.weight[p] < block.weight[c] ? block.weight[p] : block.weight[c];
        const Vec3 b_tgt = frame.scale * (block.target[p] - block.target[c]);
        block.b[k] = fade_bone(block.source[p] - block.source[c], b_tgt, share, block.axes,
                               bones.n_axes);
    }
    __syncthreads();
    if (first == 0) {
        for (int i = 0; i < K; ++i) {
            const int k = bones.order[i];
            block.faded[bones.pairs[2 * k + 1]] = block.faded[bones.pairs[2 * k]] - block.b[k];
        }
    }
    __syncthreads();

    // 2.-4. Psi, T, Delta.
    for (int k = first; k < K; k += step) {
        const int p = bones.pairs[2 * k], c = bones.pairs[2 * k + 1];
        const Vec3 b = block.b[k];
        Mat3 psi = bone_rotation(block.source[p] - block.source[c], b, block.axes, bones.n_axes);
        if (job.alpha.data && norm(b) >= kShortestBone)
            psi = rotation(unit(b), read(job.alpha, row * K + k)) * psi;
        const Vec3 t = block.faded[p] - psi * block.source[p];
        const Vec3 delta = block.faded[c] - (psi * block.source[c] + t);
        write_record(psi * frame.R, t + psi * frame.shift, delta, block.records + k * kQuads);
    }
    __syncthreads();
}

struct Blended {
    float4 column[4];
    float4 stretch;
};

__device__ static inline void add(float4 &sum, float4 a, float s) {
    sum.x += s * a.x, sum.y += s * a.y, sum.z += s * a.z;
}
__device__ static inline void add(Blended &sum, const float4 *record, float value, float offset) {
    for (int i = 0; i < 4; ++i) add(sum.column[i], record[i], value);
    add(sum.stretch, record[4], offset);
}

// Eq. (12-13), step 5: the transforms are blended first and applied once, about `centre`.
template <class Real>
__device__ static inline void blend_vertices(const pchmr_cuda_job &job, int64_t row,
                                             const float4 *records, float3 centre) {
    const pchmr_weights &weights = job.weights;
    const int64_t step = int64_t(gridDim.x) * blockDim.x;
    const float4 none = {0, 0, 0, 0};
    for (int64_t j = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; j < weights.vertices;
         j += step) {
        const Real *vertex = (const Real *)job.vertices + 3 * (row * weights.vertices + j);
        const float x = widen(vertex[0]) - centre.x, y = widen(vertex[1]) - centre.y,
                    z = widen(vertex[2]) - centre.z;
        Blended sum = {{none, none, none, none}, none};
        if (weights.indices) {
            const int64_t first = j * (weights.slots / 4);
            for (int64_t i = first; i < first + weights.slots / 4; ++i) {
                const int4 index = ((const int4 *)weights.indices)[i];
                const float4 value = ((const float4 *)weights.values)[i];
                const float4 offset = weights.offsets ? ((const float4 *)weights.offsets)[i] : none;
                add(sum, records + index.x * kQuads, value.x, offset.x);
                add(sum, records + index.y * kQuads, value.y, offset.y);
                add(sum, records + index.z * kQuads, value.z, offset.z);
                add(sum, records + index.w * kQuads, value.w, offset.w);
            }
        } else {
            const int64_t first = j * weights.slots;
            for (int k = 0; k < weights.slots; ++k)
                add(sum, records + k * kQuads, weights.values[first + k],
                    weights.offsets ? weights.offsets[first + k] : 0);
        }
        float4 moved = sum.column[3];
        add(moved, sum.column[0], x);
        add(moved, sum.column[1], y);
        add(moved, sum.column[2], z);
        add(moved, sum.stretch, 1);
        Real *out = (Real *)job.out + 3 * (row * weights.vertices + j);
        narrow(moved.x + centre.x, out[0]);  // last: far from the camera this one rounding is all
        narrow(moved.y + centre.y, out[1]);  // that is lost
        narrow(moved.z + centre.z, out[2]);
    }
}

__device__ static inline void blend_row(const pchmr_cuda_job &job, int64_t row,
                                        const float4 *records, float3 centre) {
    if (job.half)
        blend_vertices<Half>(job, row, records, centre);
    else
        blend_vertices<float>(job, row, records, centre);
}

}  // namespace pchmr

extern "C" __global__ void __launch_bounds__(PCHMR_CUDA_BLOCK)
    pchmr_calibrate(pchmr_cuda_job job) {
    PCHMR_SHARED(memory);
    const pchmr::Block block = pchmr::layout(job.bones, memory);
    pchmr::calibrate_bones(job, blockIdx.y, block);
    const pchmr::Vec3 centre = block.frame->centre;
    pchmr::blend_row(job, blockIdx.y, block.records,
                     {(float)centre.x, (float)centre.y, (float)centre.z});
}

extern "C" __global__ void __launch_bounds__(PCHMR_CUDA_BLOCK) pchmr_blend(pchmr_cuda_job job) {
    PCHMR_SHARED(records);
    const int64_t row = blockIdx.y;
    const bool stretched = job.delta;
    for (int k = threadIdx.x; k < job.bones.bones; k += blockDim.x) {
        const int64_t bone = row * job.bones.bones + k;
        const float *m = job.transforms + 12 * bone, *d = job.delta + 3 * bone;
        pchmr::write_record(
            {{{m[0], m[1], m[2]}, {m[4], m[5], m[6]}, {m[8], m[9], m[10]}}}, {m[3], m[7], m[11]},
            {stretched ? d[0] : 0, stretched ? d[1] : 0, stretched ? d[2] : 0},
            records + k * pchmr::kQuads);
    }
    __syncthreads();
    const float *c = job.centre ? job.centre + 3 * row : nullptr;
    pchmr::blend_row(job, row, records, {c ? c[0] : 0, c ? c[1] : 0, c ? c[2] : 0});
}

#ifndef __CUDACC_RTC__
int32_t pchmr_cuda_shared_bytes(int32_t joints, int32_t bones, int32_t n_axes) {
    using namespace pchmr;
    return int32_t(bones * (kQuads * sizeof(float4) + sizeof(Vec3)) + sizeof(Frame) +
                   joints * (3 * sizeof(Vec3) + sizeof(double)) + n_axes * sizeof(Vec3));
}
#endif
