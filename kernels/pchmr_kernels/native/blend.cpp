// The C ABI of the blend: threads, errors. The arithmetic is calibration.h.
#include <string>
#include <vector>

#include "calibration.h"
#include "errors.h"
#include "isa.h"
#include "parts.h"

using pchmr::fail;
using pchmr::guarded;

namespace {

constexpr int64_t kVerticesAThread = 8192;  // about 40 us of work; fewer do not repay a thread
constexpr int64_t kVerticesTogether = 512;  // shaped and skinned in the nearest cache

// Records of a batch, on a cache line; grows, never shrinks.
float *scratch(int64_t batch, int32_t bones) {
    thread_local std::vector<float> memory;
    const size_t size = size_t(batch) * bones * pchmr::kRecord + 16;
    if (memory.size() < size) memory.resize(size);
    const uintptr_t address = reinterpret_cast<uintptr_t>(memory.data());
    return memory.data() + (-address % 64) / sizeof(float);
}

// `n` vertices of one row of the batch, from vertex `first` of all rows.
void blend_piece(const pchmr_weights &weights, int32_t bones, const float *records, bool stretch,
                 const float *vertices, const float *centres, float *out, int64_t first,
                 int64_t n) {
    static const float origin[3] = {0, 0, 0};
    const int64_t row = first / weights.vertices;
    const int64_t slot = first % weights.vertices * weights.slots;
    pchmr_chosen_isa().blend_rows({n, weights.slots, records + row * bones * pchmr::kRecord,
                                   centres ? centres + 3 * row : origin, vertices,
                                   weights.indices + slot, weights.values + slot,
                                   stretch ? weights.offsets + slot : nullptr, out + 3 * first});
}

void blend_batch(const pchmr_weights &weights, int64_t batch, int32_t bones, const float *records,
                 bool stretch, const float *vertices, const float *centres, float *out,
                 int32_t threads) {
    const int64_t V = weights.vertices;
    pchmr::in_parts(batch * V, kVerticesAThread, threads, [&](int64_t begin, int64_t end) {
        for (int64_t n; begin < end; begin += n) {
            n = V - begin % V < end - begin ? V - begin % V : end - begin;
            blend_piece(weights, bones, records, stretch, vertices + 3 * begin, centres, out, begin,
                        n);
        }
    });
}

int32_t check_weights(const pchmr_weights &weights, bool stretch) {
    if (weights.slots < 1 || weights.slots > PCHMR_MAX_SLOTS)
        return fail("weights.slots is " + std::to_string(weights.slots) + "; expected 1 to " +
                    std::to_string(PCHMR_MAX_SLOTS));
    if (stretch && !weights.offsets) return fail("delta is given but weights.offsets is null");
    return 0;
}

int32_t check_bones(const pchmr_bones &bones) {
    if (bones.joints < 1 || bones.joints > PCHMR_MAX_JOINTS || bones.bones < 0 ||
        bones.bones > PCHMR_MAX_JOINTS || bones.n_axes > PCHMR_MAX_JOINTS)
        return fail(std::to_string(bones.joints) + " joints and " + std::to_string(bones.bones) +
                    " bones; at most " + std::to_string(PCHMR_MAX_JOINTS) + " of each");
    return 0;
}

}  // namespace

extern "C" {

int32_t pchmr_blend_f32(const pchmr_weights *weights, int64_t batch, int32_t bones,
                        const float *vertices, const float *transforms, const float *delta,
                        const float *centre, float *out, int32_t threads) {
    if (check_weights(*weights, delta)) return 1;
    return guarded([&] {
        float *records = scratch(batch, bones);
        for (int64_t k = 0; k < batch * bones; ++k)
            pchmr::pack_record(transforms + 12 * k, delta ? delta + 3 * k : nullptr,
                               records + pchmr::kRecord * k);
        blend_batch(*weights, batch, bones, records, delta, vertices, centre, out, threads);
    });
}

int32_t pchmr_skin_f32(const pchmr_weights *weights, int64_t batch, int32_t bones, int32_t terms,
                       const float *coefficients, const float *basis, const float *transforms,
                       float *out, int32_t threads) {
    if (check_weights(*weights, false)) return 1;
    return guarded([&] {
        float *records = scratch(batch, bones);
        for (int64_t k = 0; k < batch * bones; ++k)
            pchmr::pack_record(transforms + 12 * k, nullptr, records + pchmr::kRecord * k);
        const int64_t V = weights->vertices;
        const auto &isa = pchmr_chosen_isa();
        const int64_t pieces = (V + kVerticesTogether - 1) / kVerticesTogether;
        const int64_t least = kVerticesAThread / kVerticesTogether;
        pchmr::in_parts(pieces, least, threads, [&](int64_t begin, int64_t end) {
            alignas(64) float shaped[3 * kVerticesTogether];
            for (int64_t piece = begin; piece < end; ++piece) {
                const int64_t j = piece * kVerticesTogether;
                const int64_t n = V - j < kVerticesTogether ? V - j : kVerticesTogether;
                const float *own = basis + 3 * j * terms;
                const int64_t groups = (3 * n + PCHMR_GROUP - 1) / PCHMR_GROUP;
                for (int64_t b = 0; b < batch; ++b) {
                    isa.shape_rows({terms, coefficients + b * terms, own, groups, shaped});
                    blend_piece(*weights, bones, records, false, shaped, nullptr, out, b * V + j,
                                n);
                }
            }
        });
    });
}

int32_t pchmr_bone_transforms_f64(const pchmr_bones *bones, int64_t batch, const double *source,
                                  const double *target, const double *confidence,
                                  const double *alpha, double *transforms, double *delta,
                                  double *centre) {
    if (check_bones(*bones)) return 1;
    const int64_t J = bones->joints, K = bones->bones;
    for (int64_t b = 0; b < batch; ++b)
        pchmr::row_transforms(*bones, source + 3 * J * b, target + 3 * J * b,
                              confidence ? confidence + J * b : nullptr,
                              alpha ? alpha + K * b : nullptr, transforms + 12 * K * b,
                              delta + 3 * K * b, centre + 3 * b);
    return 0;
}

int32_t pchmr_calibrate_f32(const pchmr_bones *bones, const pchmr_weights *weights, int64_t batch,
                            const float *vertices, const double *source, const double *target,
                            const double *confidence, const double *alpha, float *out,
                            int32_t threads) {
    if (check_bones(*bones) || check_weights(*weights, true)) return 1;
    return guarded([&] {
        const int64_t J = bones->joints, K = bones->bones;
        float *records = scratch(batch, bones->bones);
        thread_local std::vector<float> centres;
        centres.resize(3 * batch);
        for (int64_t b = 0; b < batch; ++b) {
            double transforms[12 * PCHMR_MAX_JOINTS], delta[3 * PCHMR_MAX_JOINTS], centre[3];
            pchmr::row_transforms(*bones, source + 3 * J * b, target + 3 * J * b,
                                  confidence ? confidence + J * b : nullptr,
                                  alpha ? alpha + K * b : nullptr, transforms, delta, centre);
            for (int64_t k = 0; k < K; ++k) {
                float transform[12], stretch[3];
                for (int i = 0; i < 12; ++i) transform[i] = float(transforms[12 * k + i]);
                for (int i = 0; i < 3; ++i) stretch[i] = float(delta[3 * k + i]);
                pchmr::pack_record(transform, stretch, records + pchmr::kRecord * (K * b + k));
            }
            for (int i = 0; i < 3; ++i) centres[3 * b + i] = float(centre[i]);
        }
        blend_batch(*weights, batch, bones->bones, records, true, vertices, centres.data(), out,
                    threads);
    });
}

}  // extern "C"
