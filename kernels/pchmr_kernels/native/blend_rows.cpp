// Compiled once an instruction set, with PCHMR_ISA and PCHMR_LANES from setup.py. No standard library
// here: the linker could give another build's copy of its functions to a processor that lacks them.
#include "blend_rows.h"

#include "calibration.h"

namespace {

template <int Slots, bool Stretch>
void blend(const pchmr_rows &rows) {
    const float centre[3] = {rows.centre[0], rows.centre[1], rows.centre[2]};
    const float *offsets = Stretch ? rows.offsets : rows.values;
    for (int64_t j = 0; j < rows.n; ++j)
        pchmr::blend_vertex<Slots, Stretch>(rows.vertices + 3 * j, rows.records,
                                            rows.indices + Slots * j, rows.values + Slots * j,
                                            offsets + Slots * j, centre, rows.out + 3 * j);
}

template <int Slots>
void blend_slots(const pchmr_rows &rows) {
    if (rows.slots != Slots)
        blend_slots<Slots - 1>(rows);
    else if (rows.offsets)
        blend<Slots, true>(rows);
    else
        blend<Slots, false>(rows);
}

template <>
void blend_slots<0>(const pchmr_rows &) {}

// Two terms at a time: the sums are read and written half as often.
void shape(const pchmr_shape &shape) {
    float *__restrict out = shape.out;
    for (int64_t i = 0; i < shape.n; ++i) out[i] = 0;
    int32_t terms[2], found = 0;
    for (int32_t t = 0; t < shape.terms; ++t) {
        if (shape.coefficients[t] != 0) terms[found++] = t;
        if (found == 0 || (found == 1 && t + 1 < shape.terms)) continue;
        const float *__restrict first = shape.basis + terms[0] * shape.stride;
        const float *__restrict second = shape.basis + terms[found - 1] * shape.stride;
        const float a = shape.coefficients[terms[0]];
        const float b = found == 2 ? shape.coefficients[terms[1]] : 0;
        for (int64_t i = 0; i < shape.n; ++i) out[i] += a * first[i] + b * second[i];
        found = 0;
    }
}

}  // namespace

#define PCHMR_JOIN(a, b) a##b
#define PCHMR_NAME(isa) PCHMR_JOIN(pchmr_blend_rows_, isa)
#define PCHMR_SHAPE(isa) PCHMR_JOIN(pchmr_shape_rows_, isa)

void PCHMR_NAME(PCHMR_ISA)(const pchmr_rows &rows) { blend_slots<PCHMR_MAX_SLOTS>(rows); }
void PCHMR_SHAPE(PCHMR_ISA)(const pchmr_shape &of) { shape(of); }
