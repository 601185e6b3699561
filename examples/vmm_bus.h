/* What examples/vmm_bus.c has for a VMM. */
#ifndef VMM_BUS_H
#define VMM_BUS_H

#include <kmcl/endpoint.h>
#include <stddef.h>
#include <stdint.h>

struct kvm_cpuid2;
struct kvm_run;
typedef VOID BUS_CALLBACK(PVOID Context, KMCL_SERVER Server, HANDLE Partition);

int bus_create(int kvm, int vm, const int* vcpus, unsigned vcpu_count, int memfd, uint64_t bytes,
               BUS_CALLBACK* Arrived, BUS_CALLBACK* Gone);
int bus_set_cpuid(int vcpu, struct kvm_cpuid2* leaves, unsigned capacity);
int bus_start(void);
size_t bus_acpi_table(void* place, size_t capacity);
int bus_handle_exit(unsigned vcpu, struct kvm_run* run);
void bus_reset(void);
void bus_destroy(void);

#endif
