#include "pchmr_program.h"

#include <time.h>

#include <chrono>
#include <cstring>
#include <string>
#include <type_traits>
#include <utility>

#include "errors.h"
#include "pchmr_body.h"
#include "pchmr_geometry.h"
#include "pchmr_person.h"
#include "pchmr_smooth.h"

namespace {

template <class T>
T from_word(uint64_t word) {
    if constexpr (std::is_pointer_v<T>) {
        return reinterpret_cast<T>(word);
    } else if constexpr (std::is_floating_point_v<T>) {
        static_assert(sizeof(T) == sizeof word, "a word holds a double");
        T number;
        std::memcpy(&number, &word, sizeof number);
        return number;
    } else {
        return static_cast<T>(word);
    }
}

// A function that takes its arguments from words.
struct Function {
    const char *name;
    int64_t arguments;
    int32_t (*call)(const uint64_t *words);
};

template <auto F>
struct FromWords;

template <class R, class... A, R (*F)(A...)>
struct FromWords<F> {
    static constexpr Function named(const char *name) { return {name, sizeof...(A), call}; }

    static int32_t call(const uint64_t *words) { return with(words, std::index_sequence_for<A...>{}); }

    template <size_t... I>
    static int32_t with(const uint64_t *words, std::index_sequence<I...>) {
        if constexpr (std::is_void_v<R>) {
            F(from_word<A>(words[I])...);
            return 0;
        } else {
            return F(from_word<A>(words[I])...);
        }
    }
};

#define PCHMR_NAMED(name) FromWords<pchmr_##name>::named(#name)

constexpr Function kFunctions[] = {
    PCHMR_NAMED(calibrate_f32),
    PCHMR_NAMED(clock_ns),
    PCHMR_NAMED(image_target_f64),
    PCHMR_NAMED(joint_places_f64),
    PCHMR_NAMED(move_joints_f32),
    PCHMR_NAMED(narrow_f32),
    PCHMR_NAMED(points_to_crop_f64),
    PCHMR_NAMED(pose_body_f64),
    PCHMR_NAMED(pose_rotmats_f64),
    PCHMR_NAMED(project_f64),
    PCHMR_NAMED(regress_f32),
    PCHMR_NAMED(rotate_f64),
    PCHMR_NAMED(skin_f32),
    PCHMR_NAMED(smooth_bones_f64),
    PCHMR_NAMED(smooth_f32),
    PCHMR_NAMED(smooth_f64),
    PCHMR_NAMED(smooth_place_f64),
    PCHMR_NAMED(solve_translation_f64),
    PCHMR_NAMED(translate_f32),
    PCHMR_NAMED(view_people_f64),
    PCHMR_NAMED(widen_f64),
};

}  // namespace

int32_t pchmr_program_function(const char *name) {
    int32_t number = 0;
    for (const Function &function : kFunctions) {
        if (!std::strcmp(function.name, name)) return number;
        ++number;
    }
    return -1;
}

int32_t pchmr_run_program(int64_t count, const uint64_t *words) {
    for (const uint64_t *end = words + count; words < end;) {
        const Function &function = kFunctions[*words++];
        if (const int32_t failed = function.call(words)) return failed;
        words += function.arguments;
    }
    return 0;
}

void pchmr_clock_ns(int64_t *now) {
#if defined(__APPLE__)  // whose steady clock goes on while the machine sleeps
    *now = int64_t(clock_gettime_nsec_np(CLOCK_UPTIME_RAW));
#else
    const auto time = std::chrono::steady_clock::now().time_since_epoch();
    *now = std::chrono::duration_cast<std::chrono::nanoseconds>(time).count();
#endif
}

void pchmr_widen_f64(int64_t count, const float *from, double *to) {
    for (int64_t i = 0; i < count; ++i) to[i] = from[i];
}

void pchmr_narrow_f32(int64_t count, const double *from, float *to) {
    for (int64_t i = 0; i < count; ++i) to[i] = float(from[i]);
}
