#define _GNU_SOURCE
#include "leakguard/interpose.h"

#include <stdbool.h>
#include <string.h>

#if LG_CAN_INTERPOSE

#include <dlfcn.h>
#include <elf.h>
#include <fcntl.h>
#include <link.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#ifdef __x86_64__
enum { JUMP_SLOT = R_X86_64_JUMP_SLOT, GLOB_DAT = R_X86_64_GLOB_DAT };
#else
enum { JUMP_SLOT = R_AARCH64_JUMP_SLOT, GLOB_DAT = R_AARCH64_GLOB_DAT };
#endif

/* What the dynamic section of one object says. */
typedef struct {
    uintptr_t base, begin, end; /* load bias; the addresses of its segments */
    ElfW(Sym) * symbols;
    const char *strings;
    const uint32_t *gnu_hash;
    const uint32_t *hash;
    const ElfW(Rela) * tables[2];
    size_t counts[2];
    size_t relative; /* so many entries of tables[1], from the first, name no symbol */
} object;

/* The mapping that was looked up last. */
typedef struct {
    uintptr_t begin, end;
    int protection;
} mapping;

typedef struct {
    lg_interposition *interposition;
    bool begins;
    mapping known;
} rewriting;

static const void *
pointer(const object *of, ElfW(Addr) address)
{
    /* glibc has relocated these, but for the vDSO's. */
    return (const void *)(address < of->base ? of->base + address : address);
}

static bool
read_object(const struct dl_phdr_info *info, object *ret)
{
    const ElfW(Dyn) *dynamic = NULL;
    *ret = (object){.base = info->dlpi_addr, .begin = UINTPTR_MAX};
    for (int i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *header = &info->dlpi_phdr[i];
        uintptr_t begin = info->dlpi_addr + header->p_vaddr;
        if (header->p_type == PT_DYNAMIC) {
            dynamic = (const ElfW(Dyn) *)begin;
        }
        else if (header->p_type == PT_LOAD) {
            ret->begin = begin < ret->begin ? begin : ret->begin;
            ret->end = begin + header->p_memsz > ret->end ? begin + header->p_memsz : ret->end;
        }
    }
    size_t sizes[2] = {0, 0};
    bool rela = true;
    for (; dynamic != NULL && dynamic->d_tag != DT_NULL; dynamic++) {
        ElfW(Addr) value = dynamic->d_un.d_ptr;
        switch (dynamic->d_tag) {
        case DT_SYMTAB:
            ret->symbols = (ElfW(Sym) *)pointer(ret, value);
            break;
        case DT_STRTAB:
            ret->strings = pointer(ret, value);
            break;
        case DT_GNU_HASH:
            ret->gnu_hash = pointer(ret, value);
            break;
        case DT_HASH:
            ret->hash = pointer(ret, value);
            break;
        case DT_JMPREL:
            ret->tables[0] = pointer(ret, value);
            break;
        case DT_PLTRELSZ:
            sizes[0] = dynamic->d_un.d_val;
            break;
        case DT_PLTREL:
            rela = dynamic->d_un.d_val == DT_RELA;
            break;
        case DT_RELA:
            ret->tables[1] = pointer(ret, value);
            break;
        case DT_RELASZ:
            sizes[1] = dynamic->d_un.d_val;
            break;
        case DT_RELACOUNT:
            ret->relative = dynamic->d_un.d_val;
            break;
        default:
            break;
        }
    }
    for (int i = 0; i < 2; i++) {
        bool usable = ret->tables[i] != NULL && (i == 1 || rela);
        ret->counts[i] = usable ? sizes[i] / sizeof(ElfW(Rela)) : 0;
    }
    return ret->symbols != NULL && ret->strings != NULL;
}

/* The mapping that holds `address`, as the kernel tells it. */
static bool
look_up(mapping *known, uintptr_t address)
{
    if (address >= known->begin && address < known->end) {
        return true;
    }
    FILE *maps = fopen("/proc/self/maps", "re");
    char *line = NULL;
    size_t room = 0;
    bool found = false;
    while (maps != NULL && !found && getline(&line, &room, maps) > 0) {
        char flags[5] = "";
        unsigned long begin, end;
        if (sscanf(line, "%lx-%lx %4s", &begin, &end, flags) == 3 && address >= begin
            && address < end) {
            found = true;
            known->begin = begin;
            known->end = end;
            known->protection = (flags[0] == 'r' ? PROT_READ : 0)
                                | (flags[1] == 'w' ? PROT_WRITE : 0)
                                | (flags[2] == 'x' ? PROT_EXEC : 0);
        }
    }
    free(line);
    if (maps != NULL) {
        fclose(maps);
    }
    return found;
}

/* One store, of a whole word: who reads it meanwhile sees the old or the new one. */
static bool
store(mapping *known, uintptr_t *place, uintptr_t value)
{
    uintptr_t size = (uintptr_t)sysconf(_SC_PAGESIZE);
    void *page = (void *)((uintptr_t)place & ~(size - 1));
    if (!look_up(known, (uintptr_t)place)) {
        return false;
    }
    bool closed = (known->protection & PROT_WRITE) == 0;
    if (closed && mprotect(page, size, known->protection | PROT_WRITE) != 0) {
        return false;
    }
    __atomic_store_n(place, value, __ATOMIC_RELEASE);
    if (closed) {
        mprotect(page, size, known->protection);
    }
    return true;
}

/* The number of a replacement or of an original; LG_INTERPOSE_ENTRIES for neither. */
static int
number_of_ours(const lg_interposition *interposition, uintptr_t value)
{
    int i = 0;
    while (i < LG_INTERPOSE_ENTRIES && (uintptr_t)interposition->replacements[i] != value) {
        i++;
    }
    return i;
}

static int
number_of_original(lg_interposition *interposition, uintptr_t value)
{
    for (int i = 0; i < LG_INTERPOSE_ENTRIES; i++) {
        void *original = atomic_load(&interposition->originals[i]);
        if (original == NULL) {
            atomic_store(&interposition->originals[i], (void *)value);
            return i;
        }
        if (original == (void *)value) {
            return i;
        }
    }
    return LG_INTERPOSE_ENTRIES;
}

static void
change_slot(void *context, const object *in, uintptr_t *slot)
{
    rewriting *pass = context;
    lg_interposition *interposition = pass->interposition;
    uintptr_t value = __atomic_load_n(slot, __ATOMIC_ACQUIRE);
    int number = number_of_ours(interposition, value);
    if (!pass->begins) {
        if (number < LG_INTERPOSE_ENTRIES) {
            void *original = atomic_load(&interposition->originals[number]);
            interposition->slots += store(&pass->known, slot, (uintptr_t)original);
        }
        return;
    }
    if (number < LG_INTERPOSE_ENTRIES) {
        return;
    }
    /* An entry that is not bound yet points into its own object. */
    bool unbound = value >= in->begin && value < in->end;
    number = unbound ? 0 : number_of_original(interposition, value);
    if (number == LG_INTERPOSE_ENTRIES) {
        interposition->left_alone++;
        return;
    }
    uintptr_t ours = (uintptr_t)interposition->replacements[number];
    interposition->slots += store(&pass->known, slot, ours);
}

/* Calls `visit` for each GOT entry of `in` that names the function. */
static void
visit_slots(const object *in, const char *name,
            void (*visit)(void *context, const object *in, uintptr_t *slot), void *context)
{
    for (int table = 0; table < 2; table++) {
        size_t first = table == 1 && in->relative <= in->counts[1] ? in->relative : 0;
        for (size_t i = first; i < in->counts[table]; i++) {
            const ElfW(Rela) *relocation = &in->tables[table][i];
            unsigned long type = ELF64_R_TYPE(relocation->r_info);
            if (type != JUMP_SLOT && type != GLOB_DAT) {
                continue;
            }
            /* An object that defines the function itself wraps it: its own calls are its own. */
            const ElfW(Sym) *symbol = &in->symbols[ELF64_R_SYM(relocation->r_info)];
            if (symbol->st_shndx == SHN_UNDEF && strcmp(in->strings + symbol->st_name, name) == 0) {
                visit(context, in, (uintptr_t *)(in->base + relocation->r_offset));
            }
        }
    }
}

static int
change_object(struct dl_phdr_info *info, size_t size, void *context)
{
    (void)size;
    rewriting *pass = context;
    object in;
    if (read_object(info, &in)) {
        visit_slots(&in, pass->interposition->name, change_slot, pass);
    }
    return 0;
}

/* The definition: where its object's symbols say that it stands at `value`. */
typedef struct {
    rewriting *pass;
    uintptr_t value;  /* as the symbols say it now */
    uintptr_t wanted; /* as they shall say it */
    bool found;
} definition;

static void
change_symbol(definition *wanted, const object *in, uint32_t index)
{
    ElfW(Sym) *symbol = &in->symbols[index];
    if (symbol->st_shndx != SHN_UNDEF && in->base + symbol->st_value == wanted->value
        && strcmp(in->strings + symbol->st_name, wanted->pass->interposition->name) == 0) {
        wanted->found |=
            store(&wanted->pass->known, (uintptr_t *)&symbol->st_value, wanted->wanted - in->base);
    }
}

static void
change_gnu_hashed(definition *wanted, const object *in)
{
    const uint32_t *table = in->gnu_hash; /* buckets, first symbol, words of the filter, shift */
    const uint32_t *buckets = table + 4 + table[2] * (sizeof(ElfW(Addr)) / sizeof(uint32_t));
    const uint32_t *chain = buckets + table[0];
    uint32_t hash = 5381;
    for (const char *at = wanted->pass->interposition->name; *at != '\0'; at++) {
        hash = hash * 33 + (unsigned char)*at;
    }
    uint32_t index = table[0] != 0 ? buckets[hash % table[0]] : 0;
    if (index < table[1]) {
        return;
    }
    for (;; index++) {
        change_symbol(wanted, in, index);
        if (chain[index - table[1]] & 1) {
            return;
        }
    }
}

static int
change_definition(struct dl_phdr_info *info, size_t size, void *context)
{
    (void)size;
    definition *wanted = context;
    object in;
    if (!read_object(info, &in)) {
        return 0;
    }
    if (in.gnu_hash != NULL) {
        change_gnu_hashed(wanted, &in);
    }
    else if (in.hash != NULL) {
        for (uint32_t index = 1; index < in.hash[1]; index++) {
            change_symbol(wanted, &in, index);
        }
    }
    return wanted->found;
}

static bool
change_definitions(rewriting *pass, void *from, void *to)
{
    definition wanted = {.pass = pass, .value = (uintptr_t)from, .wanted = (uintptr_t)to};
    dl_iterate_phdr(change_definition, &wanted);
    return wanted.found;
}

lg_status
lg_interpose_begin(lg_interposition *interposition)
{
    rewriting pass = {.interposition = interposition, .begins = true};
    interposition->slots = interposition->left_alone = 0;
    void *ours = (void *)interposition->replacements[0];
    void *now = dlsym(RTLD_DEFAULT, interposition->name);
    if (now == NULL) {
        return LG_NOT_FOUND;
    }
    if (number_of_ours(interposition, (uintptr_t)now) == LG_INTERPOSE_ENTRIES) {
        atomic_store(&interposition->originals[0], now);
        /* Before any entry: what an executable without PIC calls the function is its own PLT,
         * which would lead back to us; its symbol is no definition. */
        if (!change_definitions(&pass, now, ours)) {
            return LG_NOT_FOUND;
        }
    }
    dl_iterate_phdr(change_object, &pass);
    return LG_OK;
}

void
lg_interpose_end(lg_interposition *interposition)
{
    rewriting pass = {.interposition = interposition, .begins = false};
    interposition->slots = 0;
    void *original = atomic_load(&interposition->originals[0]);
    if (original != NULL) {
        change_definitions(&pass, (void *)interposition->replacements[0], original);
        dl_iterate_phdr(change_object, &pass);
    }
}

/* One function in one object. */
typedef struct {
    lg_object_slots *slots;
    uintptr_t inside;
    const char *name;
    uintptr_t replacement;
    _Atomic(void *) *original;
    mapping known;
    bool full;
} object_pass;

static void
take_slot(void *context, const object *in, uintptr_t *slot)
{
    object_pass *pass = context;
    lg_object_slots *slots = pass->slots;
    uintptr_t value = __atomic_load_n(slot, __ATOMIC_ACQUIRE);
    if (value == pass->replacement) {
        return;
    }
    if (slots->count == LG_INTERPOSE_ENTRIES) {
        pass->full = true;
        return;
    }
    /* An entry that is not bound yet points into its own object. */
    bool unbound = value >= in->begin && value < in->end;
    void *original = unbound ? dlsym(RTLD_DEFAULT, pass->name) : (void *)value;
    if (original == NULL) {
        return;
    }
    atomic_store(pass->original, original);
    if (store(&pass->known, slot, pass->replacement)) {
        slots->slots[slots->count] = slot;
        slots->values[slots->count++] = value;
    }
}

static int
take_object(struct dl_phdr_info *info, size_t size, void *context)
{
    (void)size;
    object_pass *pass = context;
    object in;
    if (!read_object(info, &in) || pass->inside < in.begin || pass->inside >= in.end) {
        return 0;
    }
    visit_slots(&in, pass->name, take_slot, pass);
    return 1;
}

lg_status
lg_interpose_object(lg_object_slots *slots, const void *inside, const char *name,
                    void (*replacement)(void), _Atomic(void *) *ret_original)
{
    object_pass pass = {.slots = slots,
                        .inside = (uintptr_t)inside,
                        .name = name,
                        .replacement = (uintptr_t)replacement,
                        .original = ret_original};
    dl_iterate_phdr(take_object, &pass);
    if (pass.full) {
        lg_interpose_object_end(slots, replacement);
        return LG_FULL;
    }
    return slots->count != 0 ? LG_OK : LG_NOT_FOUND;
}

void
lg_interpose_object_end(lg_object_slots *slots, void (*replacement)(void))
{
    mapping known = {0};
    while (slots->count > 0) {
        slots->count--;
        uintptr_t *slot = slots->slots[slots->count];
        if (__atomic_load_n(slot, __ATOMIC_ACQUIRE) == (uintptr_t)replacement) {
            store(&known, slot, slots->values[slots->count]);
        }
    }
}

#else

lg_status
lg_interpose_object(lg_object_slots *slots, const void *inside, const char *name,
                    void (*replacement)(void), _Atomic(void *) *ret_original)
{
    (void)slots;
    (void)inside;
    (void)name;
    (void)replacement;
    (void)ret_original;
    return LG_NOT_FOUND;
}

void
lg_interpose_object_end(lg_object_slots *slots, void (*replacement)(void))
{
    (void)slots;
    (void)replacement;
}

lg_status
lg_interpose_begin(lg_interposition *interposition)
{
    (void)interposition;
    return LG_NOT_FOUND;
}

void
lg_interpose_end(lg_interposition *interposition)
{
    (void)interposition;
}

#endif
