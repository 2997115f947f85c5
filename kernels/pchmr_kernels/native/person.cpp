#include "pchmr_person.h"

#include "person.h"

using namespace pchmr;

namespace {

constexpr int kLandmarks = PCHMR_LANDMARKS, kPoints = PCHMR_LANDMARK_POINTS;

// The window of a point's map is one number in each of some hundred cache lines, which a network has
// just written and another core may hold: asked for together, they come together.
void fetch_window(const float *maps, int size, int n, float cell, int radius, const float *point) {
    const int column = int(point[0] / cell), row = int(point[1] / cell);
    if (!(column >= 0 && column < size && row >= 0 && row < size)) return;
    const int right = column + radius < size ? column + radius : size - 1;
    const int bottom = row + radius < size ? row + radius : size - 1;
    for (int i = row > radius ? row - radius : 0; i <= bottom; ++i)
        for (int j = column > radius ? column - radius : 0; j <= right; ++j)
            __builtin_prefetch(maps + (int64_t(i) * size + j) * kPoints + n);
}

void decode(int32_t crop_size, const float *points, float score, const float *world,
            const float *maps, int32_t map_size, int32_t radius, const Roi &roi,
            pchmr_landmarks *found) {
    double affine[6];
    crop_to_image(roi, crop_size, affine);
    const float c = cos(roi.angle), s = sin(roi.angle), scale = roi.size / crop_size;
    const float cell = maps ? float(crop_size) / map_size : 1;
    for (int n = 0; maps && n < kLandmarks + 2; ++n)
        fetch_window(maps, map_size, n, cell, radius, points + 5 * n);
    for (int n = 0; n < kLandmarks + 2; ++n) {
        const float *point = points + 5 * n;
        float x = point[0], y = point[1];
        if (maps) refine_peak(maps, map_size, map_size, kPoints, n, cell, radius, &x, &y);
        const float u = affine[0] * x + affine[1] * y + affine[2];
        const float v = affine[3] * x + affine[4] * y + affine[5];
        if (!isfinite(u) || !isfinite(v)) score = 0;
        if (n >= kLandmarks) {
            found->auxiliary[n - kLandmarks][0] = u, found->auxiliary[n - kLandmarks][1] = v;
            continue;
        }
        float *keypoint = found->keypoints_2d[n], *upright = found->world[n];
        const float *metric = world + 3 * n;
        keypoint[0] = u, keypoint[1] = v, keypoint[2] = logistic(point[3]);
        found->presence[n] = logistic(point[4]);
        found->depth_px[n] = point[2] * scale;
        upright[0] = c * metric[0] - s * metric[1];
        upright[1] = s * metric[0] + c * metric[1];
        upright[2] = metric[2];
        if (!isfinite(keypoint[2])) score = 0;
    }
    found->score = score;
    const float *hips = found->auxiliary[0], *above = found->auxiliary[1];
    const Roi next = roi_from_alignment(hips[0], hips[1], above[0], above[1]);
    const double regions[2][4] = {{roi.x, roi.y, roi.size, roi.angle},
                                  {next.x, next.y, next.size, next.angle}};
    for (int i = 0; i < 4; ++i)
        found->region[i] = regions[0][i], found->next_region[i] = regions[1][i];
}

void tight_box(const double *points, double seen, bool any, const double *frame, double *box) {
    const auto clip = [](double x, double most) { return x < 0 ? 0 : x < most ? x : most; };
    double low[2] = {1e300, 1e300}, high[2] = {-1e300, -1e300};
    for (const double *point = points; point < points + 3 * kLandmarks; point += 3) {
        if (any && !(point[2] > seen)) continue;
        for (int i = 0; i < 2; ++i) {
            if (point[i] < low[i]) low[i] = point[i];
            if (point[i] > high[i]) high[i] = point[i];
        }
    }
    for (int i = 0; i < 2; ++i) box[i] = clip(low[i], frame[i]), box[2 + i] = clip(high[i], frame[i]);
}

}  // namespace

void pchmr_decode_landmarks_f32(int64_t batch, int32_t crop_size, const float *points,
                                const float *scores, const float *world, const float *heatmaps,
                                int32_t map_size, int32_t radius, const double *regions,
                                pchmr_landmarks *found) {
    const int64_t map = int64_t(map_size) * map_size * kPoints;
    for (int64_t b = 0; b < batch; ++b) {
        const double *r = regions + 4 * b;
        decode(crop_size, points + b * kPoints * 5, scores[b], world + b * kPoints * 3,
               heatmaps ? heatmaps + b * map : nullptr, map_size, radius, {r[0], r[1], r[2], r[3]},
               found + b);
    }
}

void pchmr_view_people_f64(const double *lens, const double *frame, int64_t batch,
                           const pchmr_landmarks *found, double seen, double *keypoints,
                           double *world, double *rotation, double *side, double *box,
                           int64_t *visible) {
    const Lens camera = {lens[0], lens[1], lens[2], lens[3]};
    for (int64_t b = 0; b < batch; ++b) {
        const pchmr_landmarks &person = found[b];
        const double *region = person.region;
        double upright[9];
        ray_rotation(camera, region[0], region[1], 0, upright);
        ray_rotation(camera, region[0], region[1], region[3], rotation + 9 * b);
        side[b] = region[2];
        double *points = keypoints + 3 * b * kLandmarks, *turned = world + 3 * b * kLandmarks;
        visible[b] = 0;
        for (int n = 0; n < kLandmarks; ++n) {
            const float *metric = person.world[n];
            const Vec3 seen_so = rotate(upright, {metric[0], metric[1], metric[2]});
            turned[3 * n] = seen_so.x, turned[3 * n + 1] = seen_so.y, turned[3 * n + 2] = seen_so.z;
            for (int i = 0; i < 3; ++i) points[3 * n + i] = person.keypoints_2d[n][i];
            visible[b] += points[3 * n + 2] > seen;
        }
        tight_box(points, seen, visible[b] > 0, frame, box + 4 * b);
    }
}

void pchmr_pose_rotmats_f64(int64_t batch, int32_t joints, const float *rot6d, const double *root,
                            double *rotmats) {
    for (int64_t i = 0; i < batch * joints; ++i) rot6d_to_rotmat(rot6d + 6 * i, rotmats + 9 * i);
    for (int64_t b = 0; b < batch; ++b) {
        const double *R = root + 9 * b;
        double *own = rotmats + 9 * b * joints;
        const Mat3 turned = Mat3{{load(R), load(R + 3), load(R + 6)}} *
                            Mat3{{load(own), load(own + 3), load(own + 6)}};
        for (int i = 0; i < 3; ++i) {
            own[3 * i] = turned.row[i].x, own[3 * i + 1] = turned.row[i].y;
            own[3 * i + 2] = turned.row[i].z;
        }
    }
}

void pchmr_image_target_f64(const double *lens, int64_t batch, int32_t joints,
                            const double *lifted_joints, const double *lifted_landmarks,
                            const double *keypoints, const double *world, const double *root,
                            const float *carry, const float *trust, double *target,
                            double *confidence) {
    const Lens camera = {lens[0], lens[1], lens[2], lens[3]};
    for (int64_t b = 0; b < batch; ++b) {
        const double *lifted = lifted_landmarks + 3 * b * kLandmarks;
        const double *seen = keypoints + 3 * b * kLandmarks;
        const double hips = 0.5 * (lifted[3 * kLeftHip + 2] + lifted[3 * kRightHip + 2]);
        Vec3 residual[kLandmarks];
        for (int n = 0; n < kLandmarks; ++n)
            residual[n] = landmark_residual(camera, seen + 3 * n, load(lifted + 3 * n),
                                            world[3 * (b * kLandmarks + n) + 2], hips,
                                            load(root + 3 * b));
        for (int32_t j = 0; j < joints; ++j) {
            Vec3 joint = load(lifted_joints + 3 * (b * joints + j));
            double trusted = 0;
            for (int n = 0; n < kLandmarks; ++n) {
                const double share = carry[j * kLandmarks + n];
                if (share != 0) joint = joint + share * residual[n];
                trusted += seen[3 * n + 2] * trust[j * kLandmarks + n];
            }
            double *at = target + 3 * (b * joints + j);
            at[0] = joint.x, at[1] = joint.y, at[2] = joint.z;
            confidence[b * joints + j] = trusted;
        }
    }
}
