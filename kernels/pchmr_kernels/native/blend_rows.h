// Blend shapes and the blend of consecutive vertices of one row of the batch: one function each an
// instruction set.
#ifndef PCHMR_BLEND_ROWS_H
#define PCHMR_BLEND_ROWS_H

#include "pchmr_kernels.h"

struct pchmr_rows {
    int64_t n;
    int32_t slots;
    const float *records;  // (K, 32), see calibration.h
    const float *centre;   // (3)
    const float *vertices; // (n, 3)
    const int32_t *indices;
    const float *values;
    const float *offsets;  // (n, slots), as are indices and values; null: no stretch
    float *out;            // (n, 3)
};

// Blend shapes: out_i = sum_n coefficient_n basis_ni.
struct pchmr_shape {
    int32_t terms;
    const float *coefficients;  // (terms)
    const float *basis;         // (groups, terms, PCHMR_GROUP)
    int64_t groups;
    float *out;                 // (groups, PCHMR_GROUP)
};

void pchmr_blend_rows_baseline(const pchmr_rows &rows);
void pchmr_shape_rows_baseline(const pchmr_shape &shape);
#if defined(__x86_64__)
void pchmr_blend_rows_avx2(const pchmr_rows &rows);
void pchmr_blend_rows_avx512(const pchmr_rows &rows);
void pchmr_shape_rows_avx2(const pchmr_shape &shape);
void pchmr_shape_rows_avx512(const pchmr_shape &shape);
#endif

#endif
