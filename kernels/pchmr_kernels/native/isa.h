// What is built once an instruction set, and the choice that is in use.
#ifndef PCHMR_ISA_H
#define PCHMR_ISA_H

#include "blend_rows.h"
#include "crop_rows.h"

struct pchmr_isa_functions {
    const char *name;
    void (*blend_rows)(const pchmr_rows &);
    void (*shape_rows)(const pchmr_shape &);
    void (*crop_rows)(const pchmr_crop &, int32_t begin, int32_t end);
};

const pchmr_isa_functions &pchmr_chosen_isa();

#endif
