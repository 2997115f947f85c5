/* Calls of this library, one after the other, and small steps between them; part of its C ABI. */
#ifndef PCHMR_PROGRAM_H
#define PCHMR_PROGRAM_H

#include "pchmr_kernels.h"

#ifdef __cplusplus
extern "C" {
#endif

/* A function that a program may call, by its name without pchmr_: its number, or -1 for none. */
PCHMR_API int32_t pchmr_program_function(const char *name);

/* Calls functions in turn. words: the number of each, then its arguments, one 64-bit word each: a
 * pointer, an integer, or the bits of a double. Returns 1 at the first that fails. */
PCHMR_API int32_t pchmr_run_program(int64_t count, const uint64_t *words);

/* Nanoseconds of the clock that Python calls perf_counter. */
PCHMR_API void pchmr_clock_ns(int64_t *now);

/* Numbers in the other precision. */
PCHMR_API void pchmr_widen_f64(int64_t count, const float *from, double *to);
PCHMR_API void pchmr_narrow_f32(int64_t count, const double *from, float *to);

#ifdef __cplusplus
}
#endif

#endif
