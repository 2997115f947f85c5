// The steps between the networks of a followed person, so that a frame needs no host from its crop to
// its mesh. A block is a row of the batch, but where said otherwise; its threads take joints or points.
#include "device.h"
#include "pchmr_cuda_person.h"
#include "person.h"

#define PCHMR_PERSON_BOUNDS __launch_bounds__(PCHMR_CUDA_BLOCK, 4)
#define PCHMR_EACH(i, n) (int i = threadIdx.x; i < (n); i += blockDim.x)

namespace pchmr {

constexpr int kLandmarks = PCHMR_PERSON_LANDMARKS, kPoints = PCHMR_PERSON_POINTS;

PCHMR_DEVICE Lens lens_of(const pchmr_cuda_person &job) {
    return {job.lens[0], job.lens[1], job.lens[2], job.lens[3]};
}
PCHMR_DEVICE Roi load_roi(const double *p) { return {p[0], p[1], p[2], p[3]}; }
PCHMR_DEVICE Vec3 load(const float *p) { return {p[0], p[1], p[2]}; }
PCHMR_DEVICE void store(Vec3 a, double *p) { p[0] = a.x, p[1] = a.y, p[2] = a.z; }

PCHMR_DEVICE void put_point(const pchmr_cuda_person &job, int64_t row, int column, double x, double y,
                            double weight) {
    const Lens lens = lens_of(job);
    double u, v;
    ray_to_crop(lens, job.rotation + 9 * row, job.roi[4 * row + 2], ray(lens, x, y), &u, &v);
    float *out = job.points + 3 * (row * job.columns_taken + column);
    out[0] = u, out[1] = v, out[2] = weight;
}

}  // namespace pchmr

// A thread a row.
extern "C" __global__ void PCHMR_PERSON_BOUNDS pchmr_person_crops(pchmr_cuda_person job) {
    for (int64_t row = blockIdx.x * blockDim.x + threadIdx.x; row < job.batch;
         row += gridDim.x * blockDim.x) {
        const pchmr::Roi roi = pchmr::load_roi(job.next_roi + 4 * row);
        for (int i = 0; i < 4; ++i) job.roi[4 * row + i] = job.next_roi[4 * row + i];
        pchmr::crop_to_image(roi, job.crop_size, job.affine + 6 * row);
        pchmr::ray_rotation(pchmr::lens_of(job), roi.x, roi.y, roi.angle, job.rotation + 9 * row);
    }
}

extern "C" __global__ void PCHMR_PERSON_BOUNDS pchmr_person_landmarks(pchmr_cuda_person job) {
    using namespace pchmr;
    PCHMR_SHARED(memory);
    double *alignment = (double *)memory;  // (2, 2)
    const int64_t row = blockIdx.y;
    const Roi roi = load_roi(job.roi + 4 * row);
    const float *points = job.landmarks + row * kPoints * 5;
    for PCHMR_EACH (n, kLandmarks + 2) {
        const float *point = points + 5 * n;
        float x = point[0], y = point[1];
        if (job.heatmaps)
            refine_peak(job.heatmaps + row * job.map_size * job.map_size * kPoints, job.map_size,
                        job.map_size, kPoints, n, (float)job.crop_size / job.map_size,
                        PCHMR_PERSON_RADIUS, &x, &y);
        double affine[6];
        crop_to_image(roi, job.crop_size, affine);
        // Rounded as the host has them.
        const float u = affine[0] * x + affine[1] * y + affine[2];
        const float v = affine[3] * x + affine[4] * y + affine[5];
        if (n >= kLandmarks) {
            alignment[2 * (n - kLandmarks)] = u, alignment[2 * (n - kLandmarks) + 1] = v;
            continue;
        }
        const int64_t i = row * kLandmarks + n;
        job.keypoints[3 * i] = u, job.keypoints[3 * i + 1] = v;
        job.keypoints[3 * i + 2] = logistic(point[3]);
        const float *metric = job.world + (row * kPoints + n) * 3;
        const float c = cos(roi.angle), s = sin(roi.angle);
        const Vec3 upright = {c * metric[0] - s * metric[1], s * metric[0] + c * metric[1],
                              metric[2]};
        const Vec3 rounded = {(float)upright.x, (float)upright.y, upright.z};
        double turn[9];
        ray_rotation(lens_of(job), roi.x, roi.y, 0, turn);
        store(rotate(turn, rounded), job.world_view + 3 * i);
        if (job.world_upright) {
            store(rounded, job.world_upright + 3 * i);
            job.presence[i] = logistic(point[4]);
            job.depth[i] = point[2] * (float)(roi.size / job.crop_size);
        }
    }
    __syncthreads();
    if (threadIdx.x == 0 && job.auxiliary) {
        for (int i = 0; i < 4; ++i) job.auxiliary[4 * row + i] = alignment[i];
        const Roi next =
            roi_from_alignment(alignment[0], alignment[1], alignment[2], alignment[3]);
        double *out = job.next_roi + 4 * row;
        out[0] = next.x, out[1] = next.y, out[2] = next.size, out[3] = next.angle;
    }
}

extern "C" __global__ void PCHMR_PERSON_BOUNDS pchmr_person_points(pchmr_cuda_person job) {
    const int64_t row = blockIdx.y;
    for PCHMR_EACH (c, job.columns_taken) {
        const double *seen =
            job.keypoints + 3 * (row * pchmr::kLandmarks + job.columns[c]);
        pchmr::put_point(job, row, c, seen[0], seen[1], seen[2]);
    }
}

// The mesh's own image, all of which it sees (Eq. 3).
extern "C" __global__ void PCHMR_PERSON_BOUNDS pchmr_person_projection(pchmr_cuda_person job) {
    using namespace pchmr;
    const int64_t row = blockIdx.y;
    for PCHMR_EACH (c, job.columns_taken) {
        const Vec3 point = load(job.mesh_landmarks + 3 * (row * kLandmarks + job.columns[c])) +
                           load(job.translation + 3 * row);
        double x, y;
        project(lens_of(job), point, &x, &y);
        put_point(job, row, c, x, y, 1);
    }
}

// A joint waits for its parent: one level of the skeleton after the other.
extern "C" __global__ void PCHMR_PERSON_BOUNDS pchmr_person_pose(pchmr_cuda_person job) {
    using namespace pchmr;
    PCHMR_SHARED(memory);
    const int J = job.joints;
    double *moves = (double *)memory;         // (J, 12)
    Vec3 *rest = (Vec3 *)(moves + 12 * J), *joints = rest + J;
    int *level = (int *)(joints + J);
    const int64_t row = blockIdx.y;
    const float *betas = job.betas + row * job.shapes;
    float *coefficients = job.coefficients + row * job.terms;
    for PCHMR_EACH (j, J) {
        Vec3 at = load(job.rest + 3 * j);
        for (int s = 0; s < job.shapes; ++s)
            at = at + (double)betas[s] * load(job.rest + 3 * ((s + 1) * J + j));
        rest[j] = at;
        level[j] = 0;
        for (int p = job.parents[j]; p >= 0; p = job.parents[p]) ++level[j];
        double own[9], *out = job.rotmats + 9 * (row * J + j);
        rot6d_to_rotmat(job.rot6d + 6 * (row * J + j), own);
        for (int i = 0; i < 9; ++i) {
            const double *turn = job.rotation + 9 * row + i / 3 * 3;
            const int c = i % 3;
            const double turned = turn[0] * own[c] + turn[1] * own[3 + c] + turn[2] * own[6 + c];
            out[i] = j ? own[i] : turned;  // the root is as the camera sees it
        }
        for (int i = 0; j && i < 9 && 1 + job.shapes + 9 * j <= job.terms; ++i)
            coefficients[1 + job.shapes + 9 * (j - 1) + i] = out[i] - (i % 4 == 0);
    }
    for PCHMR_EACH (s, job.shapes + 1) coefficients[s] = s ? betas[s - 1] : 1;
    for (int depth = 0; depth < J; ++depth) {
        for PCHMR_EACH (j, J) {
            if (level[j] != depth) continue;  // the same thread's as above; parents wait below
            const int p = job.parents[j];
            pose_joint(job.rotmats + 9 * (row * J + j), rest[j], p < 0 ? nullptr : moves + 12 * p,
                       p < 0 ? Vec3{} : rest[p], p < 0 ? Vec3{} : joints[p], moves + 12 * j,
                       joints + j);
        }
        __syncthreads();
    }
    for PCHMR_EACH (i, 12 * J) job.transforms[12 * row * J + i] = moves[i];
}

// x of the grid: coordinates of the mesh.
extern "C" __global__ void PCHMR_PERSON_BOUNDS pchmr_person_shape(pchmr_cuda_person job) {
    const int64_t row = blockIdx.y, count = 3 * (int64_t)job.vertices;
    const float *coefficients = job.coefficients + row * job.terms;
    for (int64_t i = blockIdx.x * blockDim.x + threadIdx.x; i < count;
         i += gridDim.x * blockDim.x) {
        float sum = 0;
        for (int n = 1; n < job.terms; ++n) sum += coefficients[n] * job.basis[n * count + i];
        job.shaped[row * count + i] = sum + job.basis[i];
    }
}

extern "C" __global__ void PCHMR_PERSON_BOUNDS pchmr_person_place(pchmr_cuda_person job) {
    using namespace pchmr;
    PCHMR_SHARED(memory);
    double *points = (double *)memory;  // (33, 3)
    const int64_t row = blockIdx.y;
    for PCHMR_EACH (i, 3 * kLandmarks)
        points[i] = job.mesh_landmarks[row * kLandmarks * 3 + i];
    __syncthreads();
    if (threadIdx.x == 0)
        job.placed[row] =
            solve_translation(lens_of(job), kLandmarks, points,
                              job.keypoints + row * kLandmarks * 3, job.translation + 3 * row);
}

// Serial: the lifter's joints as they are, all trusted alike.
extern "C" __global__ void PCHMR_PERSON_BOUNDS pchmr_person_lifted(pchmr_cuda_person job) {
    using namespace pchmr;
    const int64_t row = blockIdx.y;
    for PCHMR_EACH (j, job.target_joints) {
        const int64_t i = row * job.target_joints + j;
        store(rotate(job.rotation + 9 * row, load(job.lifted_joints + 3 * i)), job.target + 3 * i);
        job.confidence[i] = 1;
    }
}

// Parallel: moved by what the image landmarks are off the lifter's own.
extern "C" __global__ void PCHMR_PERSON_BOUNDS pchmr_person_target(pchmr_cuda_person job) {
    using namespace pchmr;
    PCHMR_SHARED(memory);
    Vec3 *residual = (Vec3 *)memory;  // (33)
    const int64_t row = blockIdx.y;
    const double *turn = job.rotation + 9 * row;
    const float *landmarks = job.lifted_landmarks + row * kLandmarks * 3;
    const double *seen = job.keypoints + row * kLandmarks * 3;
    const double hips = 0.5 * (rotate(turn, load(landmarks + 3 * kLeftHip)).z +
                               rotate(turn, load(landmarks + 3 * kRightHip)).z);
    const Vec3 root =
        load(job.translation + 3 * row) + load(job.source + 3 * row * job.target_joints);
    for PCHMR_EACH (n, kLandmarks)
        residual[n] = landmark_residual(lens_of(job), seen + 3 * n,
                                        rotate(turn, load(landmarks + 3 * n)),
                                        job.world_view[3 * (row * kLandmarks + n) + 2], hips, root);
    __syncthreads();
    for PCHMR_EACH (j, job.target_joints) {
        const int64_t i = row * job.target_joints + j;
        const float *carry = job.carry + j * kLandmarks, *trust = job.trust + j * kLandmarks;
        Vec3 joint = rotate(turn, load(job.lifted_joints + 3 * i));
        double trusted = 0;
        for (int n = 0; n < kLandmarks; ++n) {
            joint = joint + (double)carry[n] * residual[n];
            trusted += seen[3 * n + 2] * trust[n];
        }
        store(joint, job.target + 3 * i);
        job.confidence[i] = trusted;
    }
}
