/* Serves a RAM disk to each client, and replaces itself by a new process on SIGUSR1.
 *
 *   KMCL_BUS=unix:/tmp/bus ramdisk_server IMAGE
 *   KMCL_BUS=unix:/tmp/bus ramdisk_server IMAGE SOCKET    (started by the process it replaces)
 *
 * IMAGE is a file that is made when it is not there. All clients share the disk in it. Prints
 * "serving PID" once clients are served; ends on Ctrl-C or SIGTERM. */
#define _POSIX_C_SOURCE 200809L

#include <errno.h>
#include <fcntl.h>
#include <kmcl/endpoint.h>
#include <kmcl/handover.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "ramdisk_vsp.h"

extern char** environ;

static RAMDISK_IMAGE* g_Image;

static BOOLEAN Ok(const char* What, NTSTATUS Status) {
  if (!NT_SUCCESS(Status)) {
    fprintf(stderr, "ramdisk_server %d: %s: %s\n", (int)getpid(), What, KmclStatusName(Status));
  }
  return NT_SUCCESS(Status);
}

/* Whose disk is whose. Arrivals and departures come on different threads. */
typedef struct DISK {
  HANDLE Partition;
  RAMDISK_VSP* Vsp;
  struct DISK* Next;
} DISK;
static DISK* g_Disks;
static pthread_mutex_t g_Lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t g_Gone = PTHREAD_COND_INITIALIZER;
static int g_Leaving; /* disks that are out of the list, and not destroyed yet */

static NTSTATUS AddDisk(KMCL_SERVER Server, HANDLE Partition, const VOID* Saved, ULONG SavedSize) {
  DISK* disk = malloc(sizeof(*disk));
  NTSTATUS status = STATUS_INSUFFICIENT_RESOURCES;
  if (disk == NULL) return status;
  disk->Partition = Partition;
  status = RamdiskVspCreate(KmclServerDeviceObject(Server), Partition, g_Image, Saved, SavedSize,
                            &disk->Vsp);
  if (!NT_SUCCESS(status)) {
    free(disk);
    return status;
  }
  pthread_mutex_lock(&g_Lock);
  disk->Next = g_Disks;
  g_Disks = disk;
  pthread_mutex_unlock(&g_Lock);
  return status;
}

static VOID OnArrival(PVOID Context, KMCL_SERVER Server, HANDLE Partition) {
  (void)Context;
  Ok("no disk for a client", AddDisk(Server, Partition, NULL, 0));
}

/* Takes a disk out of the list, if it is there, and destroys it; of a NULL partition, any. */
static BOOLEAN RemoveDisk(HANDLE Partition) {
  DISK* found = NULL;
  pthread_mutex_lock(&g_Lock);
  for (DISK** link = &g_Disks; *link != NULL; link = &(*link)->Next) {
    if (Partition == NULL || (*link)->Partition == Partition) {
      found = *link;
      *link = found->Next;
      ++g_Leaving;
      break;
    }
  }
  pthread_mutex_unlock(&g_Lock);
  if (found == NULL) return FALSE;
  RamdiskVspDestroy(found->Vsp);
  free(found);
  pthread_mutex_lock(&g_Lock);
  --g_Leaving;
  pthread_cond_signal(&g_Gone);
  pthread_mutex_unlock(&g_Lock);
  return TRUE;
}

static VOID OnGone(PVOID Context, KMCL_SERVER Server, HANDLE Partition) {
  (void)Context, (void)Server;
  RemoveDisk(Partition);
}

/* A server is destroyed after its channels. */
static VOID RemoveDisks(VOID) {
  while (RemoveDisk(NULL)) {
  }
  pthread_mutex_lock(&g_Lock);
  while (g_Leaving > 0) pthread_cond_wait(&g_Gone, &g_Lock);
  pthread_mutex_unlock(&g_Lock);
}

/* ---- The old process ----
 * For each disk: the partition, the size of what was saved, and that. */

typedef struct SAVED_DISK {
  HANDLE Partition;
  SIZE_T Size;
} SAVED_DISK;

typedef struct SAVED {
  unsigned char* Bytes;
  size_t Size;
} SAVED;

static BOOLEAN Append(SAVED* Saved, const void* Bytes, size_t Size) {
  unsigned char* larger = realloc(Saved->Bytes, Saved->Size + Size);
  if (larger == NULL) return FALSE;
  memcpy(larger + Saved->Size, Bytes, Size);
  Saved->Bytes = larger;
  Saved->Size += Size;
  return TRUE;
}

static NTSTATUS SaveAll(PVOID Context, KMCL_SERVER Server, const VOID** State, SIZE_T* StateSize) {
  SAVED* saved = Context;
  NTSTATUS status = STATUS_SUCCESS;
  (void)Server;
  pthread_mutex_lock(&g_Lock);
  for (DISK* disk = g_Disks; disk != NULL && NT_SUCCESS(status); disk = disk->Next) {
    PVOID bytes;
    ULONG size;
    status = RamdiskVspSave(disk->Vsp, &bytes, &size);
    if (!NT_SUCCESS(status)) break;
    const SAVED_DISK header = {disk->Partition, size};
    if (!Append(saved, &header, sizeof(header)) || !Append(saved, bytes, size)) {
      status = STATUS_INSUFFICIENT_RESOURCES;
    }
    ExFreePool(bytes);
  }
  pthread_mutex_unlock(&g_Lock);
  *State = saved->Bytes;
  *StateSize = saved->Size;
  return status;
}

static VOID ResumeAll(PVOID Context, KMCL_SERVER Server) {
  (void)Context, (void)Server;
  pthread_mutex_lock(&g_Lock);
  for (DISK* disk = g_Disks; disk != NULL; disk = disk->Next) RamdiskVspResume(disk->Vsp);
  pthread_mutex_unlock(&g_Lock);
}

/* Starts this program again and gives it the server. TRUE: it serves now. */
static BOOLEAN Replace(KMCL_SERVER Server, const char* Program, const char* ImagePath) {
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_SEQPACKET, 0, ends) != 0) {
    perror("ramdisk_server: socketpair");
    return FALSE;
  }
  /* Ours must not be inherited, or the new process would never see us go. */
  fcntl(ends[0], F_SETFD, FD_CLOEXEC);
  char socket_number[16];
  snprintf(socket_number, sizeof(socket_number), "%d", ends[1]);
  char* arguments[] = {(char*)(ULONG_PTR)Program, (char*)(ULONG_PTR)ImagePath, socket_number, NULL};
  pid_t child;
  const int error = posix_spawn(&child, "/proc/self/exe", NULL, NULL, arguments, environ);
  close(ends[1]);
  BOOLEAN replaced = FALSE;
  if (error != 0) {
    fprintf(stderr, "ramdisk_server: cannot start another: %s\n", strerror(error));
  } else {
    SAVED saved = {NULL, 0};
    KMCL_HANDOVER_OPTIONS options;
    KmclHandOverOptionsInit(&options);
    options.Context = &saved;
    options.Save = SaveAll;
    options.Resume = ResumeAll;
    replaced = Ok("handing over", KmclServerHandOver(Server, ends[0], &options));
    free(saved.Bytes);
  }
  close(ends[0]);
  return replaced;
}

/* ---- The new process ---- */

static NTSTATUS RestoreAll(PVOID Context, KMCL_SERVER Server, const VOID* State, SIZE_T StateSize) {
  const unsigned char* at = State;
  (void)Context;
  while (StateSize > 0) {
    SAVED_DISK header;
    if (StateSize < sizeof(header)) return STATUS_DATA_ERROR;
    memcpy(&header, at, sizeof(header));
    at += sizeof(header);
    StateSize -= sizeof(header);
    if (header.Size > StateSize || header.Size > 0xFFFFFFFF) return STATUS_DATA_ERROR;
    const NTSTATUS status = AddDisk(Server, header.Partition, at, (ULONG)header.Size);
    if (!NT_SUCCESS(status)) return status;
    at += header.Size;
    StateSize -= header.Size;
  }
  return STATUS_SUCCESS;
}

static BOOLEAN Serve(int Socket, KMCL_SERVER* Server) {
  KMCL_ENDPOINT_OPTIONS options;
  KmclEndpointOptionsInit(&options);
  options.PartitionArrived = OnArrival;
  options.PartitionGone = OnGone;
  if (Socket < 0) return Ok("serving", KmclServerCreate(NULL, &options, Server));
  KMCL_TAKEOVER_OPTIONS takeover;
  KmclTakeOverOptionsInit(&takeover);
  takeover.Restore = RestoreAll;
  const NTSTATUS status = KmclServerTakeOver(Socket, &options, &takeover, Server);
  close(Socket);
  return Ok("taking over", status);
}

static RAMDISK_IMAGE* MapImage(const char* Path) {
  const int file = open(Path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  void* memory = MAP_FAILED;
  if (file >= 0 && ftruncate(file, sizeof(RAMDISK_IMAGE)) == 0) {
    memory = mmap(NULL, sizeof(RAMDISK_IMAGE), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  }
  if (memory == MAP_FAILED) fprintf(stderr, "ramdisk_server: %s: %s\n", Path, strerror(errno));
  if (file >= 0) close(file);
  return memory == MAP_FAILED ? NULL : memory;
}

int main(int argc, char** argv) {
  if (argc != 2 && argc != 3) {
    fputs("usage: ramdisk_server IMAGE\n", stderr);
    return 2;
  }
  /* Blocked before there are threads, so that only sigwait below takes them. */
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGINT);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGUSR1);
  pthread_sigmask(SIG_BLOCK, &signals, NULL);

  g_Image = MapImage(argv[1]);
  if (g_Image == NULL) return EXIT_FAILURE;
  KMCL_SERVER server;
  if (!Serve(argc == 3 ? atoi(argv[2]) : -1, &server)) return EXIT_FAILURE;
  printf("serving %d\n", (int)getpid());
  fflush(stdout);

  int caught;
  do {
    sigwait(&signals, &caught);
  } while (caught == SIGUSR1 && !Replace(server, argv[0], argv[1]));
  RemoveDisks();
  KmclServerDestroy(server);
  munmap(g_Image, sizeof(*g_Image));
  return EXIT_SUCCESS;
}
