/* A plugin for qemu 7.2 that counts the instructions of an emulated program between two points of it.

   The program marks a point by getpgid(MARK), a system call that fails and does nothing; at each mark the count so far is
   appended as a line to the file that the environment names in DMF_ICOUNT. So one process can count many artifacts, and
   neither its start nor loading nor packing of weights is in any count.

   Blocks of translated code add their length inline, without a lock: exact for one thread only.
   Debian ships no header of plugins; these are the prototypes needed (plugin API version 1). */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#define EXPORTED __attribute__((visibility("default")))
#define GETPGID 155 /* of aarch64 */
#define MARK 0x7ab00000 /* runtime/worker.py: far above any process id */

typedef uint64_t qemu_plugin_id_t;
struct qemu_plugin_tb;
enum qemu_plugin_op { QEMU_PLUGIN_INLINE_ADD_U64 };
void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t, void (*)(qemu_plugin_id_t, struct qemu_plugin_tb *));
void qemu_plugin_register_vcpu_tb_exec_inline(struct qemu_plugin_tb *, enum qemu_plugin_op, void *, uint64_t);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
typedef void (*on_syscall)(qemu_plugin_id_t, unsigned vcpu, int64_t number, uint64_t, uint64_t, uint64_t, uint64_t,
                           uint64_t, uint64_t, uint64_t, uint64_t);
void qemu_plugin_register_vcpu_syscall_cb(qemu_plugin_id_t, on_syscall);

EXPORTED int qemu_plugin_version = 1;
static uint64_t count;
static FILE *marks;

static void translated(qemu_plugin_id_t id, struct qemu_plugin_tb *block) {
    (void)id;
    qemu_plugin_register_vcpu_tb_exec_inline(block, QEMU_PLUGIN_INLINE_ADD_U64, &count, qemu_plugin_tb_n_insns(block));
}

static void called(qemu_plugin_id_t id, unsigned vcpu, int64_t number, uint64_t a, uint64_t b, uint64_t c, uint64_t d,
                   uint64_t e, uint64_t f, uint64_t g, uint64_t h) {
    (void)id; (void)vcpu; (void)b; (void)c; (void)d; (void)e; (void)f; (void)g; (void)h;
    if (number == GETPGID && a == MARK) {
        fprintf(marks, "%llu\n", (unsigned long long)count);
        fflush(marks);
    }
}

EXPORTED int qemu_plugin_install(qemu_plugin_id_t id, const void *info, int argc, char **argv) {
    const char *path = getenv("DMF_ICOUNT");
    (void)info; (void)argc; (void)argv;
    if (!path || !(marks = fopen(path, "a"))) return 1;
    qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
    qemu_plugin_register_vcpu_syscall_cb(id, called);
    return 0;
}
