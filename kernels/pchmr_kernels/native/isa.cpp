// The library itself: its version, its errors, and the instruction set it uses.
#include "isa.h"

#include <atomic>
#include <cstring>
#include <string>
#include <vector>

#include "errors.h"
#include "pchmr_kernels.h"

namespace {

thread_local std::string last_error;

#define PCHMR_BUILD(isa) \
    {#isa, pchmr_blend_rows_##isa, pchmr_shape_rows_##isa, pchmr_crop_rows_##isa}

const std::vector<pchmr_isa_functions> &isas() {
    static const std::vector<pchmr_isa_functions> all = [] {
        std::vector<pchmr_isa_functions> found = {PCHMR_BUILD(baseline)};
#if defined(__x86_64__)
        __builtin_cpu_init();
        const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
        const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") &&
                            __builtin_cpu_supports("avx512vl") &&
                            __builtin_cpu_supports("avx512dq") &&
                            __builtin_cpu_supports("avx512bw");
        if (avx2) found.push_back(PCHMR_BUILD(avx2));
        if (avx512) found.push_back(PCHMR_BUILD(avx512));
#endif
        return found;
    }();
    return all;
}

std::atomic<const pchmr_isa_functions *> &chosen() {
    static std::atomic<const pchmr_isa_functions *> isa{&isas().back()};
    return isa;
}

}  // namespace

int32_t pchmr::fail(const std::string &message) {
    last_error = message;
    return 1;
}

const pchmr_isa_functions &pchmr_chosen_isa() {
    return *chosen().load(std::memory_order_relaxed);
}

extern "C" {

int32_t pchmr_version(void) { return PCHMR_VERSION; }

const char *pchmr_last_error(void) { return last_error.c_str(); }

const char *pchmr_isas(void) {
    static const std::string names = [] {
        std::string joined;
        for (const pchmr_isa_functions &isa : isas())
            joined += (joined.empty() ? "" : " ") + std::string(isa.name);
        return joined;
    }();
    return names.c_str();
}

const char *pchmr_isa(void) { return chosen().load()->name; }

int32_t pchmr_use_isa(const char *name) {
    for (const pchmr_isa_functions &isa : isas()) {
        if (std::strcmp(isa.name, name) == 0) {
            chosen() = &isa;
            return 0;
        }
    }
    return pchmr::fail(std::string("instruction set '") + name +
                       "' is not one of this machine's: " + pchmr_isas());
}

}  // extern "C"
