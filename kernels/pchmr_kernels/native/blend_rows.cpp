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

void shape(const pchmr_shape &shape) {
    typedef float Wide __attribute__((vector_size(4 * PCHMR_LANES), aligned(4), may_alias));
    constexpr int kWides = PCHMR_GROUP / PCHMR_LANES;
    const float *basis = shape.basis;
    for (int64_t g = 0; g < shape.groups; ++g) {
        Wide sum[kWides] = {};
        for (int32_t t = 0; t < shape.terms; ++t, basis += PCHMR_GROUP)
            for (int i = 0; i < kWides; ++i)
                sum[i] = sum[i] + ((const Wide *)basis)[i] * shape.coefficients[t];
        for (int i = 0; i < kWides; ++i) ((Wide *)(shape.out + PCHMR_GROUP * g))[i] = sum[i];
    }
}

}  // namespace

#define PCHMR_JOIN(a, b) a##b
#define PCHMR_NAME(isa) PCHMR_JOIN(pchmr_blend_rows_, isa)
#define PCHMR_SHAPE(isa) PCHMR_JOIN(pchmr_shape_rows_, isa)

void PCHMR_NAME(PCHMR_ISA)(const pchmr_rows &rows) { blend_slots<PCHMR_MAX_SLOTS>(rows); }
void PCHMR_SHAPE(PCHMR_ISA)(const pchmr_shape &of) { shape(of); }
