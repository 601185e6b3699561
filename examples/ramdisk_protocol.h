/* The RAM disk's protocol: what its consumer (VSC) and its provider (VSP) say to each other.
 * Messages are the payloads of packets; a sector's bytes never are, they are described (external
 * data).
 *
 *   client                                     server
 *   HELLO(bitmap) ------------------------->    maps the bitmap, fills it in
 *                 <------------------------- HELLO_REPLY(sectors)
 *   TRANSFER + memory --------------------->    copies to or from the memory it describes
 *                 <------------------------- TRANSFER_REPLY
 *                 <------------------------- NOTICE(number), every now and then
 *   NOTICE_REPLY(number) ------------------>
 *
 * The bitmap is the client's nonpaged memory, shared by a GPADL for as long as the channel is open.
 * The server sets a sector's bit when it has been written, before it completes the transfer. */
#ifndef RAMDISK_PROTOCOL_H
#define RAMDISK_PROTOCOL_H

#include <ntddk.h>

/* Which protocol, and which device. */
#define RAMDISK_TYPE                                                               \
  {                                                                                \
    0x8b1d4c27, 0x60f3, 0x4f0e, { 0xb2, 0x95, 0x4d, 0xe1, 0x07, 0x3c, 0xa8, 0x16 } \
  }
#define RAMDISK_INSTANCE                                                           \
  {                                                                                \
    0x2f97d8e1, 0x135c, 0x4a62, { 0x9b, 0xc4, 0x71, 0x0a, 0x5e, 0xd3, 0x88, 0xf5 } \
  }

#define RAMDISK_VERSION 1
#define RAMDISK_SECTOR_BYTES 512u
/* Of one transfer. */
#define RAMDISK_MOST_SECTORS 128u
#define RAMDISK_MOST_BYTES (RAMDISK_MOST_SECTORS * RAMDISK_SECTOR_BYTES)
/* Parts that the memory of one transfer may come in. */
#define RAMDISK_MOST_PARTS 4u
/* A bit for each sector: the largest disk has 32 MiB. */
#define RAMDISK_BITMAP_BYTES 8192u
#define RAMDISK_MOST_DISK_SECTORS (RAMDISK_BITMAP_BYTES * 8u)
/* After how many writes the server sends a notice. */
#define RAMDISK_WRITES_PER_NOTICE 16u

typedef enum RAMDISK_MESSAGE_TYPE {
  RamdiskHello = 1,
  RamdiskRead = 2,
  RamdiskWrite = 3,
  RamdiskNotice = 4
} RAMDISK_MESSAGE_TYPE;

typedef struct RAMDISK_HELLO {
  UINT32 Type;
  UINT32 Version;
  UINT32 BitmapGpadl;
  UINT32 Reserved;
} RAMDISK_HELLO;
C_ASSERT(sizeof(RAMDISK_HELLO) == 16);

typedef struct RAMDISK_HELLO_REPLY {
  NTSTATUS Status;
  UINT32 Reserved;
  UINT64 Sectors;
} RAMDISK_HELLO_REPLY;
C_ASSERT(sizeof(RAMDISK_HELLO_REPLY) == 16);

typedef struct RAMDISK_TRANSFER {
  UINT32 Type; /* RamdiskRead or RamdiskWrite, as the client sees it */
  UINT32 Sectors;
  UINT64 FirstSector;
} RAMDISK_TRANSFER;
C_ASSERT(sizeof(RAMDISK_TRANSFER) == 16);

typedef struct RAMDISK_TRANSFER_REPLY {
  NTSTATUS Status;
  UINT32 Reserved;
} RAMDISK_TRANSFER_REPLY;
C_ASSERT(sizeof(RAMDISK_TRANSFER_REPLY) == 8);

/* Both ways. Numbers begin with 1 at each HELLO, and none is left out. */
typedef struct RAMDISK_NOTICE {
  UINT32 Type;
  UINT32 Reserved;
  UINT64 Number;
} RAMDISK_NOTICE;
C_ASSERT(sizeof(RAMDISK_NOTICE) == 16);

#endif /* RAMDISK_PROTOCOL_H */
