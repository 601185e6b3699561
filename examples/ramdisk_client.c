/* Reads and writes a RAM disk at random, several threads at once, and compares every byte with a
 * model of its own, while the disk is paused and restarted under it.
 *
 *   KMCL_BUS=unix:/tmp/bus ramdisk_client [OPERATIONS [SEED]] </dev/null
 *
 * Prints "working" when the first operations are done. Goes on for OPERATIONS (10,000) in all, and
 * until its standard input ends; says then what it did. */
#define _POSIX_C_SOURCE 200809L

#include <kmcl/endpoint.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ramdisk_vsc.h"

enum { kThreads = 4, kRegionSectors = 2048, kFirstOperations = 100 };

static RAMDISK_VSC* g_Vsc;
static atomic_bool g_InputEnded, g_Failed;
static atomic_long g_Operations, g_Wanted = 10000;

/* Who works on which sectors. Regions do not overlap, so that each thread knows what its sectors
 * hold. */
typedef struct WORKER {
  pthread_t Thread;
  UINT64 FirstSector;
  UINT64 Random;
  long Done, Disturbances;
  unsigned char Model[kRegionSectors][RAMDISK_SECTOR_BYTES];
} WORKER;

/* xorshift64* */
static UINT64 Random(UINT64* State) {
  *State ^= *State >> 12;
  *State ^= *State << 25;
  *State ^= *State >> 27;
  return *State * 2685821657736338717ull;
}

static BOOLEAN Fail(const char* What, NTSTATUS Status) {
  fprintf(stderr, "ramdisk_client: %s: %s\n", What, KmclStatusName(Status));
  atomic_store(&g_Failed, true);
  return FALSE;
}

/* One operation on the worker's own region. `Memory` holds the largest one. */
static BOOLEAN Operate(WORKER* Worker, unsigned char* Memory) {
  const UINT32 sectors = 1 + (UINT32)(Random(&Worker->Random) % RAMDISK_MOST_SECTORS);
  const UINT64 first = Random(&Worker->Random) % (kRegionSectors - sectors + 1);
  const size_t bytes = (size_t)sectors * RAMDISK_SECTOR_BYTES;
  const BOOLEAN write = Random(&Worker->Random) % 2 == 0;
  if (write) {
    for (size_t i = 0; i < bytes; i += sizeof(UINT64)) {
      const UINT64 value = Random(&Worker->Random);
      memcpy(Memory + i, &value, sizeof(value));
    }
    memcpy(Worker->Model[first], Memory, bytes);
  } else {
    memset(Memory, 0xA5, bytes);
  }
  const NTSTATUS status =
      RamdiskVscTransfer(g_Vsc, write, Worker->FirstSector + first, sectors, Memory);
  if (!NT_SUCCESS(status)) return Fail(write ? "a write" : "a read", status);
  if (memcmp(Memory, Worker->Model[first], bytes) != 0) {
    return Fail(write ? "a write changed its buffer" : "a read differs", STATUS_DATA_ERROR);
  }
  return TRUE;
}

/* Pauses the disk under the other workers for a moment; every tenth time closes and opens it again.
 */
static void Disturb(WORKER* Worker) {
  if (++Worker->Disturbances % 10 != 0) {
    RamdiskVscPause(g_Vsc);
    RamdiskVscStart(g_Vsc);
    return;
  }
  const NTSTATUS status = RamdiskVscRestart(g_Vsc);
  if (!NT_SUCCESS(status)) Fail("a restart", status);
}

static void* Work(void* Argument) {
  WORKER* worker = Argument;
  /* Memory that the server can see, and memory that it cannot, not aligned to anything but 4. */
  unsigned char* own = malloc(RAMDISK_MOST_BYTES + 4);
  unsigned char* shared = ExAllocatePool2(POOL_FLAG_NON_PAGED, RAMDISK_MOST_BYTES + 8, 'tVdR');
  if (own == NULL || shared == NULL) Fail("memory", STATUS_INSUFFICIENT_RESOURCES);
  while (!atomic_load(&g_Failed) &&
         (!atomic_load(&g_InputEnded) || atomic_load(&g_Operations) < atomic_load(&g_Wanted))) {
    if (!Operate(worker, worker->Done % 2 == 0 ? own + 4 : shared + 8)) break;
    ++worker->Done;
    if (worker->FirstSector == 0 && worker->Done % 20 == 0) Disturb(worker);
    if (atomic_fetch_add(&g_Operations, 1) + 1 == kFirstOperations) {
      puts("working");
      fflush(stdout);
    }
  }
  free(own);
  if (shared != NULL) ExFreePoolWithTag(shared, 'tVdR');
  return NULL;
}

int main(int argc, char** argv) {
  static WORKER workers[kThreads];
  UINT64 seed = 1;
  long operations = 0;
  KMCL_CLIENT client;
  if (argc > 1) atomic_store(&g_Wanted, atol(argv[1]));
  if (argc > 2) seed = strtoull(argv[2], NULL, 10);

  NTSTATUS status = KmclClientConnect(NULL, NULL, &client);
  if (!NT_SUCCESS(status)) return !Fail("no bus", status);
  status = RamdiskVscCreate(KmclClientDeviceObject(client), &g_Vsc);
  if (!NT_SUCCESS(status)) return !Fail("no disk", status);
  /* The disk is what it was made of: zeroes. */
  for (int i = 0; i < kThreads; ++i) {
    workers[i].FirstSector = (UINT64)i * kRegionSectors;
    workers[i].Random = (seed * kThreads + (UINT64)i) * 0x9E3779B97F4A7C15ull + 1;
    if (pthread_create(&workers[i].Thread, NULL, Work, &workers[i]) != 0) abort();
  }

  char ignored[64];
  while (read(STDIN_FILENO, ignored, sizeof(ignored)) > 0) {
  }
  atomic_store(&g_InputEnded, true);
  for (int i = 0; i < kThreads; ++i) {
    pthread_join(workers[i].Thread, NULL);
    operations += workers[i].Done;
  }

  UINT64 notices;
  BOOLEAN out_of_order;
  RamdiskVscNotices(g_Vsc, &notices, &out_of_order);
  if (out_of_order) Fail("notices", STATUS_DATA_ERROR);
  const UINT64 lost = RamdiskVscTimesLost(g_Vsc);
  RamdiskVscDestroy(g_Vsc);
  KmclClientDestroy(client);
  printf("%ld operations, %ld pauses and restarts, %llu notices, lost %llu times: %s\n", operations,
         workers[0].Disturbances, (unsigned long long)notices, (unsigned long long)lost,
         atomic_load(&g_Failed) ? "FAILED" : "all as expected");
  return atomic_load(&g_Failed) ? EXIT_FAILURE : EXIT_SUCCESS;
}
