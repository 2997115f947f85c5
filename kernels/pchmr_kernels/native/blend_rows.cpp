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

}  // namespace

#define PCHMR_JOIN(a, b) a##b
#define PCHMR_NAME(isa) PCHMR_JOIN(pchmr_blend_rows_, isa)

void PCHMR_NAME(PCHMR_ISA)(const pchmr_rows &rows) { blend_slots<PCHMR_MAX_SLOTS>(rows); }
