/* Bone transforms in shared memory, in float64: `row_transforms` of calibration.h for several rows of
 * the batch at once, with a thread a joint or bone.
 */
#ifndef PCHMR_BONES_H
#define PCHMR_BONES_H

#include "device.h"

namespace pchmr {

// A bone in shared memory: the rows of (R | t), then delta. 5 is odd, so that eight neighbouring bones,
// read 16 bytes at a time, lie in different banks; so is 3, for skinning, which has no delta.
constexpr int kRecord = 5, kSkinRecord = 3;
constexpr int kParts = 4;  // threads that sum a joint from the tables

struct Frame {
    Mat3 R;  // the pre-alignment: v -> R v + shift
    Vec3 shift, centre;
    double scale;
};

// Shared memory of a block that takes `rows` rows of the batch.
struct Block {
    Quad *records;   // (rows, K, kRecord)
    Quad *skin;      // (rows, skin_bones, kSkinRecord)
    Frame *frames;   // (rows)
    char *vertices;  // (rows, kStage): staged once the rest, which overlaps it, is no longer needed
    Vec3 *source, *target, *faded;  // (rows, J)
    double *weight;                 // (rows, J)
    Vec3 *axes, *b;                 // (rows, n_axes), (rows, K) the faded bones
    Vec3 *parts;                    // (rows, J, kParts)
};

PCHMR_DEVICE Block layout(const pchmr_cuda_job &job, void *memory) {
    const int rows = job.rows, J = rows * job.bones.joints, K = rows * job.bones.bones;
    Block block;
    block.records = (Quad *)memory;
    block.skin = block.records + K * kRecord;
    block.frames = (Frame *)(block.skin + rows * job.skin_bones * kSkinRecord);
    block.vertices = (char *)(block.frames + rows);
    block.source = (Vec3 *)block.vertices;
    block.target = block.source + J;
    block.faded = block.target + J;
    block.axes = block.faded + J;
    block.b = block.axes + rows * job.bones.n_axes;
    block.weight = (double *)(block.b + K);
    block.parts = (Vec3 *)(block.weight + J);
    return block;
}

PCHMR_DEVICE Vec3 read_joint(pchmr_reals array, int64_t joint) {
    return {read(array, 3 * joint), read(array, 3 * joint + 1), read(array, 3 * joint + 2)};
}

PCHMR_DEVICE void write_record(const Mat3 &R, Vec3 t, Vec3 delta, Quad *record) {
    const Vec3 *r = R.row;
    record[0] = {(Real)r[0].x, (Real)r[0].y, (Real)r[0].z, (Real)t.x};
    record[1] = {(Real)r[1].x, (Real)r[1].y, (Real)r[1].z, (Real)t.y};
    record[2] = {(Real)r[2].x, (Real)r[2].y, (Real)r[2].z, (Real)t.z};
    record[3] = {(Real)delta.x, (Real)delta.y, (Real)delta.z, 0};
}

// Part `part` of joint m: its share of sum_k G_k sum_n c_n C_nmk, `reference.pose_joints`.
PCHMR_DEVICE Vec3 pose_joint(const pchmr_joint_tables &tables, const float *coefficients,
                             const float *transforms, int m, int part, int parts) {
    Vec3 joint = {0, 0, 0};
    for (int p = tables.first[m] + part; p < tables.first[m + 1]; p += parts) {
        double c[4] = {0, 0, 0, 0};
        for (int n = 0; n < tables.terms; ++n) {
            const float *value = tables.values + 4 * ((int64_t)n * tables.pairs + p);
            for (int h = 0; h < 4; ++h) c[h] += (double)coefficients[n] * value[h];
        }
        const float *G = transforms + 12 * tables.bones[p];
        joint = joint + Vec3{G[0] * c[0] + G[1] * c[1] + G[2] * c[2] + G[3] * c[3],
                             G[4] * c[0] + G[5] * c[1] + G[6] * c[2] + G[7] * c[3],
                             G[8] * c[0] + G[9] * c[1] + G[10] * c[2] + G[11] * c[3]};
    }
    return joint;
}

// The source joints of rows from `row`, from the tables into block.source.
PCHMR_DEVICE void pose_source(const pchmr_cuda_job &job, int64_t row, int rows, const Block &block) {
    const int J = job.bones.joints, terms = job.tables.terms;
    for (int i = threadIdx.x; i < rows * J * kParts; i += blockDim.x) {
        const int64_t own = row + i / (J * kParts);
        block.parts[i] = pose_joint(job.tables, job.coefficients + own * terms,
                                    job.transforms + own * job.skin_bones * 12, i / kParts % J,
                                    i % kParts, kParts);
    }
    __syncthreads();
    for (int i = threadIdx.x; i < rows * J; i += blockDim.x) {
        Vec3 joint = {0, 0, 0};
        for (int part = 0; part < kParts; ++part) joint = joint + block.parts[i * kParts + part];
        block.source[i] = joint;
    }
    __syncthreads();
}

// The records of all bones of rows from `row`, and their centres. Steps as in `row_transforms`.
PCHMR_DEVICE void calibrate_bones(const pchmr_cuda_job &job, int64_t row, int rows,
                                  const Block &block) {
    const pchmr_bones &bones = job.bones;
    const int first = threadIdx.x, step = blockDim.x, J = bones.joints, K = bones.bones;
    const bool given = job.source.data;

    // 0. About the root; what is missing weighs nothing.
    for (int r = first; r < rows; r += step) {
        const Vec3 root = given ? read_joint(job.source, (row + r) * J + bones.root)
                                : block.source[r * J + bones.root];
        block.frames[r].centre = {(float)root.x, (float)root.y, (float)root.z};
        block.frames[r].shift = root - block.frames[r].centre;  // what rounding it left over
    }
    __syncthreads();
    for (int i = first; i < rows * J; i += step) {
        const int64_t joint = row * J + i;
        const Vec3 centre = block.frames[i / J].centre;
        const Vec3 own = (given ? read_joint(job.source, joint) : block.source[i]) - centre;
        const Vec3 seen = read_joint(job.target, joint) - centre;
        double weight = 0;
        if (norm(seen) <= 1e300)  // false for NaN
            weight = job.confidence.data
                         ? joint_weight(read(job.confidence, joint), bones.low, bones.high)
                         : 1;
        block.source[i] = own;
        block.target[i] = weight == 0 ? own : seen;
        block.weight[i] = weight;
    }
    __syncthreads();
    for (int r = first; r < rows; r += step) {
        Frame &frame = block.frames[r];
        frame.R = bones.n_torso ? torso_rotation(bones, block.source + r * J, block.target + r * J,
                                                 block.weight + r * J)
                                : identity();
        frame.shift = frame.shift - frame.R * frame.shift;
    }
    __syncthreads();
    for (int i = first; i < rows * J; i += step)
        block.source[i] = block.frames[i / J].R * block.source[i] + block.frames[i / J].shift;
    __syncthreads();
    for (int r = first; r < rows; r += step)
        block.frames[r].scale = bones.fit_scale
                                    ? fitting_scale(bones, block.source + r * J,
                                                    block.target + r * J, block.weight + r * J)
                                    : 1;
    for (int i = first; i < rows * bones.n_axes; i += step) {
        const Vec3 *source = block.source + i / bones.n_axes * J;
        const int32_t *axis = bones.axes + 2 * (i % bones.n_axes);
        block.axes[i] = source[axis[0]] - source[axis[1]];
    }
    __syncthreads();

    // 1. Bone vectors, faded; the skeleton is put together again from the root.
    for (int i = first; i < rows * J; i += step) {
        const int root = i / J * J + bones.root;
        const Vec3 aligned =
            block.frames[i / J].scale * (block.target[i] - block.target[root]) + block.source[root];
        const double share = block.weight[i] * block.weight[root];
        block.faded[i] = block.source[i] + share * (aligned - block.source[i]);
    }
    for (int i = first; i < rows * K; i += step) {
        const int r = i / K, k = i % K;
        const int p = r * J + bones.pairs[2 * k], c = r * J + bones.pairs[2 * k + 1];
        const double share =
            block.weight[p] < block.weight[c] ? block.weight[p] : block.weight[c];
        const Vec3 b_tgt = block.frames[r].scale * (block.target[p] - block.target[c]);
        block.b[i] = fade_bone(block.source[p] - block.source[c], b_tgt, share,
                               block.axes + r * bones.n_axes, bones.n_axes);
    }
    __syncthreads();
    for (int r = first; r < rows; r += step) {
        for (int i = 0; i < K; ++i) {
            const int k = bones.order[i];
            Vec3 *faded = block.faded + r * J;
            faded[bones.pairs[2 * k + 1]] = faded[bones.pairs[2 * k]] - block.b[r * K + k];
        }
    }
    __syncthreads();

    // 2.-4. Psi, T, Delta.
    for (int i = first; i < rows * K; i += step) {
        const int r = i / K, k = i % K;
        const int p = r * J + bones.pairs[2 * k], c = r * J + bones.pairs[2 * k + 1];
        const Vec3 b = block.b[i];
        Mat3 psi = bone_rotation(block.source[p] - block.source[c], b,
                                 block.axes + r * bones.n_axes, bones.n_axes);
        if (job.alpha.data && norm(b) >= kShortestBone)
            psi = rotation(unit(b), read(job.alpha, row * K + i)) * psi;
        const Vec3 t = block.faded[p] - psi * block.source[p];
        const Vec3 delta = block.faded[c] - (psi * block.source[c] + t);
        const Frame &frame = block.frames[r];
        write_record(psi * frame.R, t + psi * frame.shift, delta, block.records + i * kRecord);
    }
    __syncthreads();
}

// The records of given transforms (3, 4) and deltas (or null), `stride` quads apart.
PCHMR_DEVICE void load_records(const void *transforms, const void *deltas, int64_t first, int count,
                               int stride, Quad *records) {
    for (int i = threadIdx.x; i < count; i += blockDim.x) {
        const Real *m = (const Real *)transforms + 12 * (first + i);
        for (int r = 0; r < 3; ++r)
            records[i * stride + r] = {m[4 * r], m[4 * r + 1], m[4 * r + 2], m[4 * r + 3]};
        if (deltas) {
            const Real *d = (const Real *)deltas + 3 * (first + i);
            records[i * stride + 3] = {d[0], d[1], d[2], 0};
        }
    }
}

}  // namespace pchmr

#endif
