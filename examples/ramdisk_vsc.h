/* The RAM disk's consumer: reads and writes sectors. */
#ifndef RAMDISK_VSC_H
#define RAMDISK_VSC_H

#include <ntddk.h>
#include <vmbuskernelmodeclientlibapi.h>

#include "ramdisk_protocol.h"

typedef struct RAMDISK_VSC RAMDISK_VSC;

/* Looks for the disk behind the device object. PASSIVE_LEVEL, as all functions here. */
NTSTATUS RamdiskVscCreate(PDEVICE_OBJECT DeviceObject, RAMDISK_VSC** Vsc);
/* No transfer may run. */
VOID RamdiskVscDestroy(RAMDISK_VSC* Vsc);

/* Moves sectors between the disk and `Buffer`, any memory. Waits until the disk is there and has
 * answered, and tries again when the channel went away meanwhile. Any thread, several at once.
 * STATUS_SUCCESS, or what the disk says. */
NTSTATUS RamdiskVscTransfer(RAMDISK_VSC* Vsc, BOOLEAN Write, UINT64 FirstSector, UINT32 Sectors,
                            PVOID Buffer);

/* Pauses the disk and lets it go on; transfers wait meanwhile. */
VOID RamdiskVscPause(RAMDISK_VSC* Vsc);
VOID RamdiskVscStart(RAMDISK_VSC* Vsc);
/* Closes the disk and looks for it anew. */
NTSTATUS RamdiskVscRestart(RAMDISK_VSC* Vsc);

/* How often the disk went away, other than by a restart, and was looked for again. */
UINT64 RamdiskVscTimesLost(RAMDISK_VSC* Vsc);

/* Notices since the channel was opened last, and whether one was ever left out or came twice. */
VOID RamdiskVscNotices(RAMDISK_VSC* Vsc, UINT64* Total, BOOLEAN* OutOfOrder);

#endif /* RAMDISK_VSC_H */
