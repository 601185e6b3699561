/* The RAM disk's provider: offers one disk to one client. All functions are called at
 * PASSIVE_LEVEL. */
#ifndef RAMDISK_VSP_H
#define RAMDISK_VSP_H

#include <ntddk.h>
#include <vmbuskernelmodeclientlibapi.h>

#include "ramdisk_protocol.h"

/* The disk's memory: sectors, and which of them were written. It outlives its providers. */
typedef struct RAMDISK_IMAGE {
  UCHAR Sectors[RAMDISK_MOST_DISK_SECTORS][RAMDISK_SECTOR_BYTES];
  UCHAR Written[RAMDISK_BITMAP_BYTES];
} RAMDISK_IMAGE;

typedef struct RAMDISK_VSP RAMDISK_VSP;

/* Offers the disk to a partition. With `Saved`, bytes of RamdiskVspSave, it goes on where the
 * provider that was saved has stopped, and its client notices nothing. */
NTSTATUS RamdiskVspCreate(PDEVICE_OBJECT DeviceObject, HANDLE Partition, RAMDISK_IMAGE* Image,
                          const VOID* Saved, ULONG SavedSize, RAMDISK_VSP** Vsp);
VOID RamdiskVspDestroy(RAMDISK_VSP* Vsp);

/* Pauses the disk and saves its channel. The bytes are the caller's to give to ExFreePool. The disk
 * stays paused until RamdiskVspResume or RamdiskVspDestroy, also on failure. */
NTSTATUS RamdiskVspSave(RAMDISK_VSP* Vsp, PVOID* Saved, ULONG* SavedSize);
VOID RamdiskVspResume(RAMDISK_VSP* Vsp);

#endif /* RAMDISK_VSP_H */
