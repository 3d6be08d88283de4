/* The names of native addresses, as the dynamic linker knows them: exported functions only. */
#ifndef LEAKGUARD_SYMBOL_H
#define LEAKGUARD_SYMBOL_H

#include <stdint.h>

typedef struct {
    const char *function; /* borrowed from its module, as long as that is loaded; or NULL */
    uintptr_t offset;     /* in the function */
    const char *module;   /* path, borrowed likewise; NULL where no object is mapped there */
    uintptr_t module_offset;
} lg_symbol;

/* Any thread. For a return address, pass the byte before it. */
lg_symbol
lg_symbol_of(uintptr_t address);

#endif
