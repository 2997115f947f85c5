// The fused calibration: joints and vertices in, calibrated vertices out, in one launch; with skinning
// and mesh-to-pose in front of it, too.
//
// A y of the grid is `job.rows` rows of the batch, an x a share of their vertices. Every block turns the
// rows' joints into bone transforms, then blends its vertices; weights are read once for all of its
// rows. The result of a vertex depends neither on the shape of the grid nor on its place in the batch.
#include "mesh.h"

namespace pchmr {

PCHMR_DEVICE int rows_from(const pchmr_cuda_job &job, int64_t row) {
    return job.batch - row < job.rows ? int(job.batch - row) : job.rows;
}

}  // namespace pchmr

// Four blocks a processor, 128 registers a thread, or three and 168: enough that none is spilled.
#define PCHMR_MESH_BOUNDS(blocks) __launch_bounds__(PCHMR_CUDA_BLOCK, blocks)

extern "C" __global__ void PCHMR_MESH_BOUNDS(4) pchmr_calibrate(pchmr_cuda_job job) {
    PCHMR_SHARED(memory);
    const pchmr::Block block = pchmr::layout(job, memory);
    const int64_t row = (int64_t)blockIdx.y * job.rows;
    const int rows = pchmr::rows_from(job, row);
    pchmr::calibrate_bones(job, row, rows, block);
    pchmr::blend_mesh<true, false>(job, row, rows, block);
}

extern "C" __global__ void PCHMR_MESH_BOUNDS(3) pchmr_skin_calibrate(pchmr_cuda_job job) {
    PCHMR_SHARED(memory);
    const pchmr::Block block = pchmr::layout(job, memory);
    const int64_t row = (int64_t)blockIdx.y * job.rows;
    const int rows = pchmr::rows_from(job, row);
    if (!job.source.data) pchmr::pose_source(job, row, rows, block);
    pchmr::load_records(job.transforms, nullptr, row * job.skin_bones, rows * job.skin_bones,
                        pchmr::kSkinRecord, block.skin);
    pchmr::calibrate_bones(job, row, rows, block);
    pchmr::blend_mesh<true, true>(job, row, rows, block);
}

extern "C" __global__ void PCHMR_MESH_BOUNDS(4) pchmr_blend(pchmr_cuda_job job) {
    PCHMR_SHARED(memory);
    const pchmr::Block block = pchmr::layout(job, memory);
    const int64_t row = (int64_t)blockIdx.y * job.rows;
    const int rows = pchmr::rows_from(job, row), K = job.bones.bones;
    pchmr::load_records(job.transforms, job.delta, row * K, rows * K, pchmr::kRecord,
                        block.records);
    for (int r = threadIdx.x; r < rows; r += blockDim.x) {
        block.frames[r].centre = {0, 0, 0};
        if (job.centre) {
            const pchmr::Real *c = (const pchmr::Real *)job.centre + 3 * (row + r);
            block.frames[r].centre = {c[0], c[1], c[2]};
        }
    }
    if (job.delta)  // blend_tiles waits before it reads them
        pchmr::blend_mesh<true, false>(job, row, rows, block);
    else
        pchmr::blend_mesh<false, false>(job, row, rows, block);
}

// Joints (B, J, 3) float32 of the skinned mesh, by the tables: a block a row of the batch.
extern "C" __global__ void __launch_bounds__(PCHMR_CUDA_BLOCK)
    pchmr_pose_joints(pchmr_cuda_job job) {
    PCHMR_SHARED(memory);
    const pchmr::Block block = pchmr::layout(job, memory);
    const int64_t row = blockIdx.y;
    pchmr::pose_source(job, row, 1, block);
    float *out = (float *)job.out + row * job.bones.joints * 3;
    for (int j = threadIdx.x; j < job.bones.joints; j += blockDim.x) {
        const pchmr::Vec3 joint = block.source[j];
        out[3 * j] = joint.x, out[3 * j + 1] = joint.y, out[3 * j + 2] = joint.z;
    }
}

#ifndef __CUDACC_RTC__
int32_t pchmr_cuda_shared_bytes(const pchmr_cuda_job *job) {
    using namespace pchmr;
    const int32_t joints = job->bones.joints, bones = job->bones.bones;
    const size_t records = sizeof(Quad) * (bones * kRecord + job->skin_bones * kSkinRecord);
    const size_t scratch = sizeof(Vec3) * (3 * joints + job->bones.n_axes + bones) +
                           sizeof(double) * joints +
                           (job->tables.values ? sizeof(Vec3) * joints * kParts : 0);
    const size_t shared = scratch > kStage ? scratch : kStage;
    return int32_t(job->rows * (records + sizeof(Frame) + shared));
}
#endif
