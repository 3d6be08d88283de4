#define _GNU_SOURCE
#include "leakguard/symbol.h"

#include <dlfcn.h>
#include <stddef.h>

lg_symbol
lg_symbol_of(uintptr_t address)
{
    Dl_info info;
    lg_symbol symbol = {NULL, 0, NULL, 0};
    if (dladdr((void *)address, &info) == 0) {
        return symbol;
    }
    symbol.module = info.dli_fname;
    symbol.module_offset = address - (uintptr_t)info.dli_fbase;
    if (info.dli_sname != NULL) {
        symbol.function = info.dli_sname;
        symbol.offset = address - (uintptr_t)info.dli_saddr;
    }
    return symbol;
}
