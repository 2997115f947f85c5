// The C ABI: choice of the instruction set, threads, errors. The arithmetic is calibration.h.
#include <atomic>
#include <cstring>
#include <exception>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

#include "blend_rows.h"
#include "calibration.h"

namespace {

thread_local std::string last_error;

int32_t fail(const std::string &message) {
    last_error = message;
    return 1;
}

// Runs `work`, whose exceptions (no memory, no thread) must not cross the C ABI.
template <class Work>
int32_t guarded(Work work) {
    try {
        work();
        return 0;
    } catch (const std::exception &error) {
        return fail(error.what());
    }
}

struct Isa {
    const char *name;
    void (*blend)(const pchmr_rows &);
};

const std::vector<Isa> &isas() {
    static const std::vector<Isa> all = [] {
        std::vector<Isa> found = {{"baseline", pchmr_blend_rows_baseline}};
#if defined(__x86_64__)
        __builtin_cpu_init();
        const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
        const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") &&
                            __builtin_cpu_supports("avx512vl") &&
                            __builtin_cpu_supports("avx512dq") &&
                            __builtin_cpu_supports("avx512bw");
        if (avx2) found.push_back({"avx2", pchmr_blend_rows_avx2});
        if (avx512) found.push_back({"avx512", pchmr_blend_rows_avx512});
#endif
        return found;
    }();
    return all;
}

std::atomic<const Isa *> &chosen() {
    static std::atomic<const Isa *> isa{&isas().back()};
    return isa;
}

constexpr int64_t kVerticesAThread = 8192;  // about 40 us of work; fewer do not repay a thread

// Records of a batch, on a cache line; grows, never shrinks.
float *scratch(int64_t batch, int32_t bones) {
    thread_local std::vector<float> memory;
    const size_t size = size_t(batch) * bones * pchmr::kRecord + 16;
    if (memory.size() < size) memory.resize(size);
    const uintptr_t address = reinterpret_cast<uintptr_t>(memory.data());
    return memory.data() + (-address % 64) / sizeof(float);
}

void blend_range(const pchmr_weights &weights, int32_t bones, const float *records, bool stretch,
                 const float *vertices, const float *centres, float *out, int64_t begin,
                 int64_t end) {
    static const float origin[3] = {0, 0, 0};
    while (begin < end) {
        const int64_t row = begin / weights.vertices, j = begin % weights.vertices;
        const int64_t n = end - begin < weights.vertices - j ? end - begin : weights.vertices - j;
        const int64_t slot = j * weights.slots;
        chosen().load(std::memory_order_relaxed)->blend(
            {n, weights.slots, records + row * bones * pchmr::kRecord,
             centres ? centres + 3 * row : origin, vertices + 3 * begin, weights.indices + slot,
             weights.values + slot, stretch ? weights.offsets + slot : nullptr, out + 3 * begin});
        begin += n;
    }
}

void blend_batch(const pchmr_weights &weights, int64_t batch, int32_t bones, const float *records,
                 bool stretch, const float *vertices, const float *centres, float *out,
                 int32_t threads) {
    const int64_t total = batch * weights.vertices;
    int64_t parts = total / kVerticesAThread + 1;
    if (parts > threads) parts = threads > 1 ? threads : 1;
    const auto part = [&](int64_t i) {
        blend_range(weights, bones, records, stretch, vertices, centres, out, total * i / parts,
                    total * (i + 1) / parts);
    };
    std::vector<std::thread> others;
    others.reserve(parts);
    for (int64_t i = 1; i < parts; ++i) {
        try {
            others.emplace_back(part, i);
        } catch (const std::system_error &) {  // no thread to be had
            part(i);
        }
    }
    part(0);
    for (std::thread &other : others) other.join();
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

int32_t pchmr_version(void) { return PCHMR_VERSION; }

const char *pchmr_last_error(void) { return last_error.c_str(); }

const char *pchmr_isas(void) {
    static const std::string names = [] {
        std::string joined;
        for (const Isa &isa : isas()) joined += (joined.empty() ? "" : " ") + std::string(isa.name);
        return joined;
    }();
    return names.c_str();
}

const char *pchmr_isa(void) { return chosen().load()->name; }

int32_t pchmr_use_isa(const char *name) {
    for (const Isa &isa : isas()) {
        if (std::strcmp(isa.name, name) == 0) {
            chosen() = &isa;
            return 0;
        }
    }
    return fail(std::string("instruction set '") + name + "' is not one of this machine's: " +
                pchmr_isas());
}

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
