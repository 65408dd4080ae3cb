#pragma once
#include "stabilizer_types.h"

#define PEER_LOCALIZATION_MAX_NEIGHBORS 10

typedef struct peerLocalizationOtherPosition_s {
  uint8_t id; /* 0: nobody */
  point_t pos;
} peerLocalizationOtherPosition_t;

peerLocalizationOtherPosition_t *peerLocalizationGetPositionByIdx(uint8_t idx);
